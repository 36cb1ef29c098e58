#include "ctl/drain.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ctl/testing/example.h"

namespace dsm::ctl {
namespace {

using nlohmann::json;
using testing::Example;
using ::testing::HasSubstr;

class Drain : public ::testing::Test {
 protected:
  Result<GroupPods> choose(const std::string& group) const {
    return choose_group(example.model, example.pods, group);
  }
  std::string revision() const { return example.model["status"]["updatedRevision"]; }

  Example example;
};

TEST_F(Drain, a_group_is_named_as_in_the_tree_or_by_its_number) {
  const std::string name = "r1-" + revision() + "-1";
  for (const std::string& said : {std::string("1"), revision() + "-1", name}) {
    const auto group = choose(said);
    ASSERT_TRUE(group) << group.error().message;
    EXPECT_EQ(group->name, name);
    ASSERT_EQ(group->pods.size(), 2U);
    EXPECT_EQ(group->pods[0]["metadata"]["name"], name + "-0");
  }
}

TEST_F(Drain, a_wrong_name_is_answered_with_those_that_there_are) {
  EXPECT_EQ(choose("2").error().message, "GROUP: r1 has no group 2; there are: r1-" + revision() +
                                             "-0, r1-" + revision() + "-1");
  example.pods.clear();
  EXPECT_EQ(choose("0").error().message, "r1 has no groups");
}

TEST_F(Drain, a_number_that_groups_of_two_revisions_have_is_not_enough) {
  json other = testing::example_spec();
  other["model"]["revision"] = "b";
  const plan::Revision second = testing::revision_of(other, 2);
  example.pods.push_back(testing::pod_object(second, 0, 0, true));
  EXPECT_THAT(choose("0").error().message, HasSubstr("several groups of r1 have the number 0"));
  EXPECT_TRUE(choose(second.name + "-0"));
}

TEST_F(Drain, pods_of_others_are_not_touched) {
  for (json& pod : example.pods) pod["metadata"]["ownerReferences"][0]["uid"] = "another";
  EXPECT_FALSE(choose("0"));
}

TEST_F(Drain, the_patch_is_what_the_operator_reads) {
  json pod = example.pods[0];
  const json patch = drain_patch(pod, true, testing::kNow);
  EXPECT_EQ(patch["metadata"]["uid"], pod["metadata"]["uid"]);
  pod.merge_patch(patch);
  EXPECT_TRUE(plan::pod_view(pod).drain);
  EXPECT_TRUE(is_asked_to_go({"g", {example.pods[1], pod}}));
  pod.merge_patch(drain_patch(pod, false, testing::kNow));
  EXPECT_FALSE(plan::pod_view(pod).drain);
}

TEST_F(Drain, the_state_is_what_the_operator_says) {
  api::ModelStatus status;
  EXPECT_EQ(drain_state(status, "g"), "not in the model's status");
  status.groups.emplace_back().name = "g";
  status.groups[0].phase = "Ready";
  EXPECT_EQ(drain_state(status, "g"), "Ready, the operator does not move it yet");
  status.groups[0].reason = "GroupDraining";
  status.groups[0].message = "it serves";
  EXPECT_EQ(drain_state(status, "g"), "Ready, GroupDraining: it serves");
  status.conditions.push_back({"Degraded", api::Truth::kTrue, 1, "", "DrainBlocked", "no room"});
  EXPECT_EQ(drain_state(status, "g"), "DrainBlocked: no room");
}

}  // namespace
}  // namespace dsm::ctl
