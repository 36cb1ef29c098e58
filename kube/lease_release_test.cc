// Whose Lease a process frees when it ends.
#include "kube/lease.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kube/testing/scripted_transport.h"

namespace dsm::kube {
namespace {

using testing::json_answer;
using testing::ScriptedTransport;
using testing::status_answer;

Json lease(const std::string& holder, const std::string& version) {
  return {{"metadata", {{"name", "l"}, {"namespace", "ns"}, {"resourceVersion", version}}},
          {"spec", {{"holderIdentity", holder}, {"leaseDurationSeconds", 15}}}};
}

class LeaseReleaseTest : public ::testing::Test {
 protected:
  void lead() {
    transport_.next(status_answer(404, "NotFound"));
    transport_.next(json_answer(201, lease("me", "1")));
    election_.step();
    ASSERT_TRUE(election_.leading());
  }
  std::vector<Json> puts() {
    std::vector<Json> bodies;
    for (const HttpRequest& request : transport_.requests()) {
      if (request.method == "PUT") bodies.push_back(Json::parse(request.body));
    }
    return bodies;
  }

  ScriptedTransport transport_;
  ManualClock clock_;
  Client client_{transport_, clock_, {}};
  Election election_{
      client_, {.ns = "ns", .name = "l", .identity = "me", .times = {}, .on_change = {}}, Logger()};
};

TEST_F(LeaseReleaseTest, ItsOwn) {
  lead();
  transport_.next(json_answer(200, lease("", "2")));
  election_.release();
  ASSERT_EQ(puts().size(), 1U);
  EXPECT_EQ(puts()[0]["spec"]["holderIdentity"], "");
  EXPECT_EQ(puts()[0]["metadata"]["resourceVersion"], "1");
}

// It stood still before a renewal for longer than the Lease lasts, and ends before its next step.
TEST_F(LeaseReleaseTest, NotThatOfTheOneWhoHasTakenOver) {
  lead();
  clock_.advance(Seconds(3));
  transport_.next(status_answer(409, "Conflict"));
  transport_.next(json_answer(200, lease("other", "7")));
  election_.step();
  election_.release();
  EXPECT_EQ(puts().size(), 1U) << "only the renewal";
}

}  // namespace
}  // namespace dsm::kube
