#include "ctl/rehearse.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ctl/plan_text.h"
#include "ctl/testing/example.h"

namespace dsm::ctl {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using testing::Example;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

std::string all_steps(const Rehearsal& rehearsal) {
  std::string text;
  for (const auto& step : rehearsal.steps) {
    for (const std::string& line : step) text += line + "\n";
  }
  return text;
}

class Rehearse : public ::testing::Test {
 protected:
  Rehearsal rehearsed(const json& spec_patch) {
    example.model["spec"].merge_patch(spec_patch);
    return rehearse(example.observed());
  }
  std::string group(int number) const { return "r1-" + before + "-" + std::to_string(number); }

  Example example;
  std::string before = example.model["status"]["updatedRevision"];
};

TEST_F(Rehearse, a_model_that_is_as_it_should_be_needs_nothing) {
  const Rehearsal r = rehearsed(json::object());
  EXPECT_THAT(r.steps, IsEmpty()) << all_steps(r);
  EXPECT_TRUE(r.settled);
  EXPECT_THAT(r.kept, ElementsAre(group(0), group(1)));
  EXPECT_EQ(r.revision, before);
}

TEST_F(Rehearse, a_new_model_gets_its_children_and_its_groups) {
  example.model.erase("status");
  example.pods.clear();
  example.services.clear();
  example.revisions.clear();
  example.secret = nullptr;
  const Rehearsal r = rehearsed(json::object());
  EXPECT_TRUE(r.settled);
  EXPECT_EQ(r.revision_before, "");
  EXPECT_THAT(r.made, ElementsAre(group(0), group(1)));
  EXPECT_THAT(all_steps(r), HasSubstr("making Service r1-ranks"));
  EXPECT_THAT(all_steps(r), HasSubstr("making group " + group(1) + ": 2 pods"));
}

TEST_F(Rehearse, a_change_of_the_pods_rolls_group_by_group) {
  const Rehearsal r = rehearsed({{"model", {{"revision", "b"}}}});
  EXPECT_TRUE(r.settled);
  EXPECT_NE(r.revision, before);
  EXPECT_THAT(r.made, SizeIs(2));
  EXPECT_THAT(r.removed, ElementsAre(group(0), group(1)));
  // With one group of surge a new one is made before an old one goes.
  const std::string steps = all_steps(r);
  EXPECT_LT(steps.find("making group"), steps.find("removing group"));
  EXPECT_GT(steps.rfind("making group"), steps.find("removing group"));
}

TEST_F(Rehearse, scaling_keeps_the_revision) {
  const Rehearsal less = rehearsed({{"replicas", 1}});
  EXPECT_THAT(less.removed, SizeIs(1));
  EXPECT_THAT(less.kept, SizeIs(1));
  EXPECT_EQ(less.revision, before);
  const Rehearsal more = rehearsed({{"replicas", 4}});
  EXPECT_THAT(more.made, ElementsAre(group(2), group(3)));
}

TEST_F(Rehearse, a_wrong_spec_is_said_with_its_remedy_and_touches_nothing) {
  const Rehearsal r = rehearsed({{"parallelism", {{"tensor", 3}}}});
  EXPECT_EQ(r.problem, "spec.parallelism.tensor: is 3; use 1, 2, 4 or 8");
  EXPECT_THAT(r.made, IsEmpty());
  EXPECT_THAT(r.removed, IsEmpty());
}

TEST_F(Rehearse, a_name_that_somebody_else_has_is_a_problem) {
  example.services[0]["metadata"]["ownerReferences"] = json::array();
  EXPECT_THAT(rehearsed(json::object()).problem, HasSubstr("Service r1 belongs to somebody else"));
}

TEST_F(Rehearse, what_is_on_its_way_is_taken_as_arriving) {
  // One pod is being deleted, another one's node was not found yet.
  example.pods[0]["metadata"]["deletionTimestamp"] = "2026-01-02T12:01:00Z";
  example.pods[3]["status"] = {{"phase", "Pending"}};
  const Rehearsal r = rehearsed({{"model", {{"revision", "b"}}}});
  EXPECT_TRUE(r.settled);
  EXPECT_THAT(r.removed, SizeIs(2));
  EXPECT_THAT(r.made, SizeIs(2));
}

TEST_F(Rehearse, the_text_names_changes_revisions_and_steps) {
  PlannedModel planned{"r1", "team-a", false, {{"spec.model.revision", "a", "b"}}, {}, {}};
  planned.rehearsal = rehearsed({{"model", {{"revision", "b"}}}});
  const std::string text = plan_text(planned, {});
  EXPECT_THAT(text, HasSubstr("r1  namespace team-a\n|-- spec.model.revision: \"a\" -> \"b\"\n"));
  EXPECT_THAT(text, HasSubstr("|-- revision " + before + " -> " + planned.rehearsal.revision));
  EXPECT_THAT(text, HasSubstr("`-- 2 groups made, 2 removed, 0 kept\n    |-- 1. making"));
  EXPECT_EQ(to_json(planned)["groupsRemoved"], json({group(0), group(1)}));
}

TEST_F(Rehearse, the_text_says_that_a_rollout_is_paused) {
  PlannedModel planned{"r1", "team-a", false, {}, {}, {}};
  EXPECT_THAT(plan_text(planned, {}), Not(HasSubstr("paused")));
  planned.rehearsal.paused = true;
  EXPECT_THAT(plan_text(planned, {}), HasSubstr("dsmctl resume r1"));
}

TEST_F(Rehearse, the_text_of_a_wrong_spec_is_its_mistake_alone) {
  PlannedModel planned{"r1", "team-a", true, {}, {}, {}};
  planned.rehearsal.problem = "spec.replicas: is -1; use 0 to 1000";
  EXPECT_EQ(plan_text(planned, {}),
            "r1  namespace team-a  new model\n`-- wrong: spec.replicas: is -1; use 0 to 1000\n");
}

}  // namespace
}  // namespace dsm::ctl
