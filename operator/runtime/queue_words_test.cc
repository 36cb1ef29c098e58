#include "operator/runtime/queue_words.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kube/testing/scripted_transport.h"

namespace dsm::runtime {
namespace {

using kube::Json;
using kube::testing::json_answer;
using kube::testing::ScriptedTransport;
using kube::testing::status_answer;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

Json waiting(const std::string& words) {
  const Json condition = {{"type", "QuotaReserved"}, {"status", "False"}, {"message", words}};
  return {{"status", {{"conditions", Json::array({condition})}}}};
}

class QueueWordsTest : public ::testing::Test {
 protected:
  ScriptedTransport transport_;
  ManualClock clock_;
  kube::Client client_{transport_, clock_, {}};
  QueueWords words_{client_};
};

TEST_F(QueueWordsTest, are_asked_for_once_in_some_seconds) {
  transport_.next(json_answer(200, waiting("no quota")));
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(words_.of_groups("ns", {"m-1-0"}), UnorderedElementsAre(Pair("m-1-0", "no quota")));
  }
  ASSERT_THAT(transport_.requests(), SizeIs(1));
  EXPECT_THAT(transport_.requests()[0].target,
              HasSubstr("/apis/kueue.x-k8s.io/v1beta2/namespaces/ns/workloads/m-1-0"));
  clock_.advance(QueueWords::kKept + Millis(1));
  transport_.next(json_answer(200, waiting("a check is pending")));
  EXPECT_THAT(words_.of_groups("ns", {"m-1-0"}),
              UnorderedElementsAre(Pair("m-1-0", "a check is pending")));
}

TEST_F(QueueWordsTest, of_an_older_kueue_are_read_in_its_version) {
  transport_.next(status_answer(404, "NotFound"));
  transport_.next(json_answer(200, waiting("no quota")));
  EXPECT_THAT(words_.of_groups("ns", {"g"}), UnorderedElementsAre(Pair("g", "no quota")));
  EXPECT_THAT(transport_.requests().back().target, HasSubstr("/v1beta1/"));
}

TEST_F(QueueWordsTest, that_cannot_be_read_are_none_and_are_asked_for_again) {
  transport_.next(status_answer(403, "Forbidden"));
  EXPECT_THAT(words_.of_groups("ns", {"g"}), IsEmpty());
  transport_.next(json_answer(200, waiting("no quota")));
  EXPECT_THAT(words_.of_groups("ns", {"g"}), SizeIs(1));
}

TEST_F(QueueWordsTest, of_the_first_groups_are_enough) {
  std::vector<std::string> groups;
  for (std::size_t i = 0; i < 2 * QueueWords::kMostGroups; ++i) {
    groups.push_back("g-" + std::to_string(i));
    if (i < QueueWords::kMostGroups) transport_.next(json_answer(200, waiting("no quota")));
  }
  EXPECT_THAT(words_.of_groups("ns", groups), SizeIs(QueueWords::kMostGroups));
  EXPECT_THAT(transport_.requests(), SizeIs(QueueWords::kMostGroups));
}

}  // namespace
}  // namespace dsm::runtime
