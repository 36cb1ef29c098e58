#include "operator/plan/rollback.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "operator/api/names.h"

namespace dsm::plan {
namespace {

using testing::HasSubstr;

Revision revision(const std::string& name, long number, bool served) {
  return {.name = name, .spec = {}, .image = "i", .number = number, .served = served};
}

class Rollbacks : public testing::Test {
 protected:
  Rollbacks() {
    before.current_revision = "bad";
    add(revision("old", 1, true));
    add(revision("good", 2, true));
    add(revision("half", 3, false));
    add(revision("bad", 4, true));
  }
  void add(Revision one) { revisions[one.name] = std::move(one); }
  std::optional<api::Rollback> of(const std::string& request, const std::string& wanted = "bad") {
    return rollback_of({request, wanted, before, revisions, not_allowed});
  }
  // What was said is remembered.
  api::Rollback say(const std::string& request, const std::string& wanted = "bad") {
    before.rollback = of(request, wanted);
    return before.rollback.value_or(api::Rollback{});
  }

  api::ModelStatus before;
  std::map<std::string, Revision> revisions;
  std::vector<std::string> not_allowed;
};

TEST_F(Rollbacks, the_newest_revision_that_has_served_takes_the_place) {
  EXPECT_FALSE(of(""));
  const auto now = say("bad@2026-01-01T00:00:00Z");
  EXPECT_TRUE(now.active);
  EXPECT_EQ(now.from, "bad");
  EXPECT_EQ(now.to, "good");
  EXPECT_EQ(now.message, "revision bad is not run, good is run in its place");
}

TEST_F(Rollbacks, in_the_middle_of_a_rollout_it_is_the_one_that_serves) {
  before.current_revision = "old";
  EXPECT_EQ(say("bad").to, "old");
}

TEST_F(Rollbacks, one_that_has_begun_keeps_its_revision) {
  say("bad");
  before.current_revision = "good";
  add(revision("later", 9, true));
  EXPECT_EQ(say("bad").to, "good");
  revisions.erase("good");
  EXPECT_EQ(say("bad").to, "later") << "somebody deleted its ControllerRevision";
}

TEST_F(Rollbacks, an_edit_ends_it_for_good) {
  say("bad");
  const auto over = say("bad", "next");
  EXPECT_FALSE(over.active);
  EXPECT_EQ(over.to, "");
  EXPECT_EQ(over.message, "the rollback from revision bad is over: the spec asks for next now");
  EXPECT_FALSE(say("bad", "bad").active) << "the annotation was left behind";
  EXPECT_TRUE(say("bad@again", "bad").active);
}

TEST_F(Rollbacks, a_spec_that_cannot_be_taken_neither_ends_nor_begins_one) {
  say("bad");
  EXPECT_TRUE(say("bad", "").active);
  EXPECT_TRUE(say("bad").active);
  const auto refused = say("bad@again", "");
  EXPECT_FALSE(refused.active);
  EXPECT_THAT(refused.message, HasSubstr("the spec cannot be taken"));
  EXPECT_FALSE(say("bad@again", "bad").active) << "it was mended: that is not what was rolled back";
}

TEST_F(Rollbacks, what_cannot_be_is_refused_with_its_cause) {
  EXPECT_EQ(say("other").message,
            "nothing is rolled back: the spec asks for revision bad, not for other");
  not_allowed = {"good", "old", "half"};
  EXPECT_EQ(say("bad@1").message,
            "nothing is rolled back: the model's tenant allows no other revision");
  not_allowed = {"good"};
  EXPECT_EQ(say("bad@2").to, "old");
  not_allowed = {};
  revisions = {{"bad", revision("bad", 1, false)}};
  EXPECT_EQ(say("bad@3").message,
            "nothing is rolled back: there is no other revision to go back to");
}

TEST(RollbackRequest, is_an_annotation_of_the_model) {
  const std::string key(api::kRollbackAnnotation);
  EXPECT_EQ(rollback_request({{"metadata", {{"annotations", {{key, "a@b"}}}}}}), "a@b");
  EXPECT_EQ(rollback_request({{"metadata", {{"annotations", {{key, 7}}}}}}), "");
  EXPECT_EQ(rollback_request({{"metadata", nlohmann::json::object()}}), "");
  EXPECT_EQ(rollback_request(nlohmann::json()), "");
}

}  // namespace
}  // namespace dsm::plan
