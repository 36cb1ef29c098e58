// `dsmctl rollback --keep-spec` and `--undo`.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ctl/testing/fake_cluster.h"
#include "operator/plan/rollback.h"

namespace dsm::ctl {
namespace {

using nlohmann::json;
using testing::FakeCluster;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class KeepSpec : public ::testing::Test {
 protected:
  Result<int> run_it(const RollbackCommand& command) { return run(command, fake.cluster, fake.io); }
  std::string revision() const { return fake.example.model["status"]["updatedRevision"]; }

  FakeCluster fake;
};

TEST_F(KeepSpec, asks_the_operator_and_leaves_the_spec) {
  const json spec = fake.example.model["spec"];
  const auto code = run_it({.model = "r1", .keep_spec = true});
  ASSERT_TRUE(code) << code.error().message;
  EXPECT_EQ(plan::rollback_request(fake.example.model), revision() + "@2026-01-02T12:00:00Z");
  EXPECT_EQ(fake.example.model["spec"], spec);
  EXPECT_THAT(fake.out.str(), HasSubstr("goes back from revision " + revision()));
  ASSERT_TRUE(run_it({.model = "r1", .undo = true}));
  EXPECT_EQ(plan::rollback_request(fake.example.model), "");
  EXPECT_THAT(fake.out.str(), HasSubstr("is rolled out again"));
}

TEST_F(KeepSpec, is_not_asked_for_twice) {
  fake.example.model["status"]["rollback"] = {{"active", true}, {"from", "5f2c19aa"}};
  EXPECT_EQ(run_it({.model = "r1", .keep_spec = true}).error().message,
            "revision 5f2c19aa is rolled back already; --undo ends that");
  EXPECT_THAT(fake.transport.writes(), IsEmpty());
}

// Else it might name a revision that the spec does not ask for any more.
TEST_F(KeepSpec, waits_until_the_operator_has_seen_the_spec) {
  fake.example.model["metadata"]["generation"] = 2;
  EXPECT_THAT(run_it({.model = "r1", .keep_spec = true}).error().message,
              HasSubstr("has not looked at the last change"));
  EXPECT_THAT(fake.transport.writes(), IsEmpty());
}

TEST_F(KeepSpec, there_is_nothing_to_undo) {
  EXPECT_EQ(run_it({.model = "r1", .undo = true}).error().message,
            "r1 is not rolled back with --keep-spec");
}

TEST_F(KeepSpec, the_list_says_what_is_rolled_back) {
  fake.example.model["status"]["rollback"] = {{"active", true}, {"from", revision()}};
  ASSERT_TRUE(run_it({.model = "r1", .list = true}));
  EXPECT_THAT(fake.out.str(), HasSubstr("wanted, rolled back, serving"));
}

}  // namespace
}  // namespace dsm::ctl
