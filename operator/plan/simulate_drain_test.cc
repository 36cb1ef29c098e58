// Histories of nodes that are emptied, end or do not answer.
#include "operator/plan/simulate_fixture.h"

namespace dsm::plan {
namespace {

TEST_F(History, a_cordoned_node_is_left_group_by_group_and_nothing_stops_serving) {
  ready();
  sim.least_ready = 2;
  sim.cordon("node-0");
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.history(), ElementsAre("100s +A2.0 +A2.1", "103s -A0.0", "106s -A0.1"));
  EXPECT_THAT(sim.pods(), ElementsAre("A1.0", "A1.1", "A2.0", "A2.1"));
  EXPECT_THAT(sim.events(), Contains("NodeDraining"));
  EXPECT_EQ(sim.condition("Progressing"), "False/AsWanted");
}

TEST_F(History, while_a_group_leaves_its_node_the_model_says_so_and_is_ready) {
  ready();
  sim.cordon("node-0");
  sim.run(1);
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
  EXPECT_EQ(sim.condition("Progressing"), "True/NodeDraining");
  EXPECT_THAT(sim.message("Progressing"), HasSubstr("node node-0 is cordoned"));
  EXPECT_EQ(sim.status()["groups"][0]["reason"], "NodeDraining");
  EXPECT_EQ(sim.status()["groups"][0]["phase"], "Ready");
  EXPECT_EQ(sim.status()["replicas"], 2);
}

TEST_F(History, two_cordoned_nodes_are_left_one_group_at_a_time) {
  ready();
  sim.least_ready = 2;
  sim.cordon("node-0");
  sim.cordon("node-1");
  sim.run(1);
  EXPECT_EQ(sim.pods().size(), 6U);
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(sim.pods().size(), 4U);
  for (const auto& name : sim.pods()) {
    EXPECT_THAT(std::string(sim.pod(name)["spec"]["nodeName"]), Not("node-0"));
    EXPECT_THAT(std::string(sim.pod(name)["spec"]["nodeName"]), Not("node-1"));
  }
}

TEST_F(History, a_drain_without_room_is_blocked_and_says_so_while_the_model_serves) {
  ready();
  sim.least_ready = 2;
  sim.room = 4;
  sim.cordon("node-0");
  sim.run(50);
  EXPECT_EQ(sim.condition("Degraded"), "False/AsWanted");
  sim.run(20);
  EXPECT_EQ(sim.condition("Degraded"), "True/DrainBlocked");
  EXPECT_EQ(sim.condition("Progressing"), "False/DrainBlocked");
  EXPECT_EQ(sim.condition("Stalled"), "False/AsWanted");
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
  EXPECT_THAT(sim.pods(), ElementsAre("A0.0", "A0.1", "A1.0", "A1.1"));
  // It stays so while it is tried again, and is said once.
  sim.run(600);
  EXPECT_EQ(sim.condition("Degraded"), "True/DrainBlocked");
  EXPECT_EQ(std::ranges::count(sim.events(), "DrainBlocked"), 1);
  sim.cordon("node-0", false);
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(sim.condition("Degraded"), "False/AsWanted");
  EXPECT_FALSE(sim.status().contains("backoff"));
}

TEST_F(History, a_blocked_drain_gives_up_no_group_although_one_may_be_unavailable) {
  sim.edit({{"rollout", {{"maxUnavailable", 1}}}});
  ready();
  sim.least_ready = 2;  // what it gave up would free no room, because its node takes no pods
  sim.room = 4;
  sim.cordon("node-0");
  sim.run(200);
  EXPECT_EQ(sim.condition("Degraded"), "True/DrainBlocked");
  sim.room = 6;
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.pods(), Not(Contains("A0.0")));
}

TEST_F(History, a_spot_node_that_is_about_to_end_is_left_at_once) {
  ready();
  sim.taint("node-0", "aws-node-termination-handler/spot-itn", "NoSchedule");
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.history().front(), HasSubstr("100s -A0.0 +A2.0 +A2.1"));
  EXPECT_THAT(sim.pods(), ElementsAre("A1.0", "A1.1", "A2.0", "A2.1"));
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
}

TEST_F(History, a_cordoned_node_is_left_also_while_a_rollout_is_paused) {
  ready();
  sim.edit({{"image", "worker:2"}, {"rollout", {{"paused", true}}}});
  sim.least_ready = 2;
  sim.cordon("node-0");
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.pods(), ElementsAre("A1.0", "A1.1", "A2.0", "A2.1"));
}

TEST_F(History, a_node_that_is_seen_not_to_answer_is_given_up_when_its_pods_are_evicted) {
  ready();
  sim.lose_node("A0.1");
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.history().front(), HasSubstr("-A0.0 +A2.0 +A2.1"));
  EXPECT_EQ(sim.status()["avoidedNodes"][0]["name"], "node-0");
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
  // The pod that cannot end is not deleted by force: only the node can say that it has ended.
  EXPECT_THAT(sim.pods(), ElementsAre("A0.1", "A1.0", "A1.1", "A2.0", "A2.1"));
}

TEST_F(History, every_group_that_has_worked_has_a_disruption_budget_as_long_as_it_is_there) {
  while (sim.pods().size() < 4) sim.run(1);
  EXPECT_THAT(sim.children("PodDisruptionBudget"), IsEmpty());
  ready();
  const std::string revision = sim.status()["updatedRevision"];
  const std::string first = "m-" + revision + "-0";
  EXPECT_THAT(sim.children("PodDisruptionBudget"), ElementsAre(first, "m-" + revision + "-1"));
  for (const json& child : sim.children()) {
    if (child["kind"] != "PodDisruptionBudget" || child["metadata"]["name"] != first) continue;
    EXPECT_EQ(child["spec"]["minAvailable"], 2);
    EXPECT_EQ(child["spec"]["unhealthyPodEvictionPolicy"], "AlwaysAllow");
    for (const auto& [key, value] : child["spec"]["selector"]["matchLabels"].items()) {
      EXPECT_EQ(sim.pod("A0.1")["metadata"]["labels"][key], value);
    }
  }
  sim.drift(first, {{"spec", {{"minAvailable", 1}}}});
  EXPECT_TRUE(sim.settle());
  for (const json& child : sim.children()) {
    if (child["kind"] != "PodDisruptionBudget") continue;
    EXPECT_EQ(child["spec"]["minAvailable"], 2);
  }
  sim.scale(1);
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(sim.children("PodDisruptionBudget").size(), 1U);
}

TEST_F(History, without_a_view_of_nodes_there_are_no_disruption_budgets) {
  sim.config.watches_nodes = false;
  ready();
  EXPECT_THAT(sim.children("PodDisruptionBudget"), IsEmpty());
}

}  // namespace
}  // namespace dsm::plan
