// Histories of groups whose containers keep ending.
#include "operator/plan/simulate_fixture.h"

namespace dsm::plan {
namespace {

json group(const Simulation& sim, const std::string& suffix) {
  for (const json& each : sim.status()["groups"]) {
    if (each["name"].get<std::string>().ends_with(suffix)) return each;
  }
  return nullptr;
}

TEST_F(History, a_group_on_a_bad_node_is_replaced_away_from_it) {
  sim.bad_nodes = {"node-0"};
  sim.run(10);
  EXPECT_EQ(group(sim, "-0")["phase"], "Starting");
  EXPECT_EQ(group(sim, "-0")["reason"], "CrashLoop");
  sim.run(90);
  // The other group serves on; the new one has been asked to stay away from that node.
  EXPECT_THAT(sim.pods(), ElementsAre("A1.0", "A1.1", "A2.0", "A2.1"));
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
  EXPECT_EQ(sim.status()["avoidedNodes"][0]["name"], "node-0");
  const json preference = sim.pod("A2.1")["spec"]["affinity"]["nodeAffinity"]
                                         ["preferredDuringSchedulingIgnoredDuringExecution"];
  EXPECT_EQ(preference[0]["preference"]["matchFields"][0]["values"], json::array({"node-0"}));
  EXPECT_EQ(sim.status()["currentRevision"], sim.status()["updatedRevision"]);
  EXPECT_EQ(sim.status()["backoff"]["reason"], "CrashLoop");
  EXPECT_THAT(sim.status()["backoff"]["message"].get<std::string>(), HasSubstr("no such model"));
  EXPECT_THAT(sim.events(), Contains("GroupFailed"));
  // It is remembered after the pods are gone: a group that is made later avoids the node, too.
  sim.scale(3);
  sim.run(20);
  EXPECT_EQ(sim.pod("A0.0")["spec"]["nodeName"], "spare-0");
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
  // What happened is over when all have been stable, and the node is like any other after an hour.
  sim.run(700);
  EXPECT_FALSE(sim.status().contains("backoff"));
  sim.run(3600);
  sim.scale(2);
  sim.run(20);
  EXPECT_FALSE(sim.status().contains("avoidedNodes"));
}

TEST_F(History, a_group_that_answers_wrongly_is_replaced_under_that_reason) {
  sim.bad_nodes = {"node-0"};
  sim.last_words = "ProbeFailed: token 1 of 8 is 7";
  sim.run(10);
  EXPECT_EQ(group(sim, "-0")["reason"], "ProbeFailed");
  EXPECT_EQ(sim.condition("Degraded"), "True/ProbeFailed");
  sim.run(90);
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
  EXPECT_EQ(sim.status()["avoidedNodes"][0]["name"], "node-0");
  EXPECT_THAT(sim.status()["backoff"]["message"].get<std::string>(), HasSubstr("token 1 of 8"));
}

TEST_F(History, restarts_add_up_until_the_group_has_been_stable_for_the_window) {
  sim.edit({{"recovery", {{"maxRestarts", 2}, {"window", "60s"}}}});
  ready();
  for (int i = 0; i < 4; ++i) {
    sim.crash_pod("A0.1");
    sim.run(10);
    EXPECT_EQ(group(sim, "-0")["recentRestarts"], 1);
    sim.run(90);
    EXPECT_EQ(group(sim, "-0")["recentRestarts"], 0);
  }
  EXPECT_EQ(group(sim, "-0")["restarts"], 4);
  for (const auto& line : sim.history()) EXPECT_THAT(line, Not(HasSubstr("+A")));
  // As many in a minute are too many.
  for (int i = 0; i < 2; ++i) {
    sim.crash_pod("A0.1");
    sim.run(10);
  }
  EXPECT_THAT(sim.pods(), ElementsAre("A0.0", "A0.1", "A1.0", "A1.1"));
  sim.crash_pod("A0.1");
  sim.run(1);
  EXPECT_EQ(group(sim, "-0")["phase"], "Failed");
  EXPECT_EQ(sim.condition("Degraded"), "True/CrashLoop");
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.pods(), ElementsAre("A1.0", "A1.1", "A2.0", "A2.1"));
}

TEST_F(History, without_restarts_to_spare_the_first_one_costs_the_group) {
  sim.edit({{"recovery", {{"maxRestarts", 0}}}});
  ready();
  sim.crash_pod("A1.0");
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.history(), Contains(HasSubstr("-A1.0 -A1.1 +A2.0 +A2.1")));
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
}

TEST_F(History, a_group_that_waits_to_be_replaced_again_has_failed) {
  sim.bad_image = "worker:bad";
  sim.edit({{"image", "worker:bad"}, {"recovery", {{"maxRestarts", 1}}}});
  sim.run(60);
  EXPECT_EQ(sim.status()["backoff"]["count"], 1);
  EXPECT_EQ(group(sim, "-1")["phase"], "Failed");
  EXPECT_THAT(group(sim, "-1")["message"].get<std::string>(),
              HasSubstr("spec.recovery.maxRestarts is 1"));
  EXPECT_EQ(sim.condition("Degraded"), "True/CrashLoop");
}

}  // namespace
}  // namespace dsm::plan
