// Histories of groups that somebody asks to go.
#include "operator/plan/simulate_fixture.h"

namespace dsm::plan {
namespace {

TEST_F(History, a_group_that_is_asked_to_go_goes_when_another_one_serves) {
  ready();
  sim.least_ready = 2;
  sim.drain("A0");
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.history(), ElementsAre("100s +A2.0 +A2.1", "103s -A0.0", "106s -A0.1"));
  EXPECT_THAT(sim.pods(), ElementsAre("A1.0", "A1.1", "A2.0", "A2.1"));
  EXPECT_THAT(sim.events(), Contains("GroupDraining"));
  EXPECT_EQ(sim.condition("Progressing"), "False/AsWanted");
}

TEST_F(History, while_a_group_is_asked_to_go_the_model_says_so_and_is_ready) {
  ready();
  sim.drain("A1");
  sim.run(1);
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
  EXPECT_EQ(sim.condition("Progressing"), "True/GroupDraining");
  EXPECT_THAT(sim.message("Progressing"), HasSubstr("a drain is asked for; group m-"));
  const json& group = sim.status()["groups"][1];
  EXPECT_EQ(group["phase"], "Ready");
  EXPECT_EQ(group["reason"], "GroupDraining");
  EXPECT_EQ(sim.status()["replicas"], 2);
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.events(), Contains("GroupRemoved"));
}

TEST_F(History, the_group_in_its_place_rather_goes_to_other_nodes) {
  ready();
  sim.drain("A0");
  sim.run(1);
  const json fields = sim.pod(
      "A2.0")["spec"]["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
             [0]["preference"]["matchFields"][0];
  EXPECT_EQ(fields["operator"], "NotIn");
  EXPECT_THAT(fields["values"], Contains(json("node-0")));
}

TEST_F(History, groups_that_are_asked_together_go_one_at_a_time) {
  ready();
  sim.least_ready = 2;
  sim.drain("A0");
  sim.drain("A1");
  sim.run(1);
  EXPECT_EQ(sim.pods().size(), 6U) << "maxSurge is 1";
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(sim.pods().size(), 4U);
  EXPECT_THAT(sim.pods(), Not(Contains("A1.0")));
}

TEST_F(History, a_group_that_is_asked_to_go_and_finds_no_room_stays_until_that_is_taken_back) {
  ready();
  sim.least_ready = 2;
  sim.room = 4;
  sim.drain("A0");
  sim.run(70);
  EXPECT_EQ(sim.condition("Degraded"), "True/DrainBlocked");
  EXPECT_EQ(sim.condition("Progressing"), "False/DrainBlocked");
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
  EXPECT_THAT(sim.message("Degraded"),
              HasSubstr("no node had room for one more group. It stays and serves. Make room, or "
                        "take the drain back (dsmctl drain --cancel)"));
  sim.drain("A0", false);
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(sim.condition("Degraded"), "False/AsWanted");
  EXPECT_THAT(sim.pods(), ElementsAre("A0.0", "A0.1", "A1.0", "A1.1"));
  EXPECT_FALSE(sim.status().contains("backoff"));
}

// Unlike one on a cordoned node, whose place nobody could take.
TEST_F(History, without_room_a_group_that_may_be_unavailable_goes_first) {
  sim.edit({{"rollout", {{"maxUnavailable", 1}}}});
  ready();
  sim.least_ready = 1;
  sim.room = 4;
  sim.drain("A0");
  sim.run(70);
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.pods(), Not(Contains("A0.0")));
  EXPECT_EQ(sim.pods().size(), 4U);
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
}

TEST_F(History, a_group_goes_also_while_a_rollout_is_paused) {
  ready();
  sim.edit({{"image", "worker:2"}, {"rollout", {{"paused", true}}}});
  sim.least_ready = 2;
  sim.drain("A0");
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.pods(), ElementsAre("A1.0", "A1.1", "A2.0", "A2.1"));
}

TEST_F(History, a_drain_that_was_asked_for_outlives_a_lost_pod) {
  ready();
  sim.drain("A0");
  sim.fail_pod("A0.0");
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.pods(), ElementsAre("A1.0", "A1.1", "A2.0", "A2.1"));
}

TEST_F(History, without_a_view_of_nodes_groups_can_be_asked_to_go) {
  sim.config.watches_nodes = false;
  ready();
  sim.least_ready = 2;
  sim.drain("A0");
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.pods(), ElementsAre("A1.0", "A1.1", "A2.0", "A2.1"));
}

TEST_F(History, a_cordon_goes_before_what_is_asked_for) {
  ready();
  sim.drain("A0");
  sim.cordon("node-0");
  sim.run(1);
  EXPECT_EQ(sim.condition("Progressing"), "True/NodeDraining");
}

}  // namespace
}  // namespace dsm::plan
