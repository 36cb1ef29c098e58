// Histories of models whose pods the API server refuses, some or all.
#include "operator/plan/simulate_fixture.h"

namespace dsm::plan {
namespace {

json refused_group(const Simulation& sim) {
  for (const json& group : sim.status()["groups"]) {
    if (group.value("reason", "") == "QuotaExceeded") return group;
  }
  return nullptr;
}

int made(const Simulation& sim, const std::string& pod) {
  return static_cast<int>(std::ranges::count_if(sim.history(), [&](const std::string& line) {
    return line.find("+" + pod) != std::string::npos;
  }));
}

TEST_F(History, a_rollout_at_the_quota_says_why_it_waits_and_what_to_set) {
  ready();
  sim.least_ready = 2;
  sim.quota = 4;
  sim.edit({{"image", "worker:2"}});
  sim.run(5);
  // A first refusal may be a mistake of the quota, which still counts pods that are gone.
  EXPECT_EQ(sim.condition("Stalled"), "False/AsWanted");
  EXPECT_EQ(refused_group(sim)["phase"], "Pending");
  EXPECT_THAT(refused_group(sim)["message"].get<std::string>(), HasSubstr("exceeded quota: pods"));
  sim.run(20);
  for (const char* type : {"Ready", "Progressing", "Stalled"}) {
    EXPECT_THAT(sim.condition(type), HasSubstr("/SurgeUnschedulable")) << type;
    EXPECT_THAT(sim.message(type), HasSubstr("exceeded quota: pods")) << type;
    EXPECT_THAT(sim.message(type), HasSubstr("set spec.rollout.maxUnavailable to 1")) << type;
  }
  EXPECT_EQ(sim.status()["ready"], "2/2");
  EXPECT_TRUE(refused_group(sim).is_null());
  EXPECT_THAT(sim.pods(), ElementsAre("A0.0", "A0.1", "A1.0", "A1.1"));
  // What it says to set is all that it takes.
  sim.least_ready = 1;
  sim.edit({{"rollout", {{"maxUnavailable", 1}}}});
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
  EXPECT_THAT(sim.pods(), ElementsAre("B0.0", "B0.1", "B1.0", "B1.1"));
  EXPECT_EQ(sim.condition("Stalled"), "False/AsWanted");
  EXPECT_FALSE(sim.status().contains("backoff"));
}

TEST_F(History, a_quota_that_is_raised_lets_a_rollout_go_on) {
  ready();
  sim.least_ready = 2;
  sim.quota = 4;
  sim.edit({{"image", "worker:2"}});
  sim.run(900);
  EXPECT_EQ(sim.condition("Stalled"), "True/SurgeUnschedulable");
  EXPECT_GT(sim.status()["backoff"]["count"].get<int>(), 2);  // ever more seldom
  EXPECT_LT(sim.status()["backoff"]["count"].get<int>(), 8);
  sim.quota = 6;
  sim.run(400);
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
  EXPECT_THAT(sim.pods(), ElementsAre("B0.0", "B0.1", "B1.0", "B1.1"));
  EXPECT_FALSE(sim.status().contains("backoff"));
}

TEST_F(History, with_max_unavailable_a_rollout_goes_on_at_the_quota) {
  sim.edit({{"replicas", 3}, {"rollout", {{"maxUnavailable", 1}}}});
  ready();
  sim.least_ready = 2;
  for (const int quota : {6, 7}) {  // room for half a group makes no difference
    sim.quota = quota;
    sim.edit({{"engine", {{"maxNumSeqs", quota}}}});
    EXPECT_TRUE(sim.settle());
    EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady") << quota;
    EXPECT_EQ(sim.pods().size(), 6U) << quota;
    EXPECT_EQ(sim.status()["currentRevision"], sim.status()["updatedRevision"]) << quota;
  }
}

TEST_F(History, a_surge_group_that_is_refused_by_half_gives_back_what_it_has) {
  ready();
  sim.least_ready = 2;
  sim.quota = 5;
  sim.edit({{"image", "worker:2"}});
  sim.run(5);
  EXPECT_THAT(sim.pods(), Contains("B0.0"));
  EXPECT_EQ(refused_group(sim)["reason"], "QuotaExceeded");
  sim.run(25);
  EXPECT_EQ(sim.condition("Stalled"), "True/SurgeUnschedulable");
  EXPECT_THAT(sim.message("Stalled"), HasSubstr("exceeded quota: pods"));
  EXPECT_THAT(sim.pods(), ElementsAre("A0.0", "A0.1", "A1.0", "A1.1"));
}

TEST_F(History, a_drain_at_the_quota_is_blocked_in_its_words_while_the_model_is_ready) {
  ready();
  sim.least_ready = 2;
  sim.quota = 4;
  sim.cordon("node-0");
  for (int i = 0; i < 60; ++i) {
    sim.run(1);
    EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
    EXPECT_THAT(sim.condition("Degraded"), testing::AnyOf("False/AsWanted", "True/DrainBlocked"));
  }
  EXPECT_EQ(sim.condition("Degraded"), "True/DrainBlocked");
  EXPECT_EQ(sim.condition("Progressing"), "False/DrainBlocked");
  EXPECT_THAT(sim.message("Degraded"), HasSubstr("node node-0 is cordoned"));
  EXPECT_THAT(sim.message("Degraded"), HasSubstr("exceeded quota: pods"));
  sim.quota = 6;
  sim.run(400);
  EXPECT_THAT(sim.pods(), ElementsAre("A1.0", "A1.1", "A2.0", "A2.1"));
  EXPECT_EQ(sim.condition("Degraded"), "False/AsWanted");
}

TEST_F(History, with_max_unavailable_a_node_is_left_at_the_quota) {
  sim.edit({{"rollout", {{"maxUnavailable", 1}}}});
  ready();
  sim.least_ready = 1;
  sim.quota = 4;
  sim.cordon("node-0");
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
  EXPECT_EQ(sim.pods().size(), 4U);
  for (const std::string& name : sim.pods()) {
    EXPECT_NE(sim.pod(name)["spec"]["nodeName"], "node-0") << name;
  }
}

TEST_F(History, a_group_that_is_refused_by_half_gives_back_what_it_holds) {
  sim.quota = 3;
  sim.run(290);
  EXPECT_THAT(sim.pods(), ElementsAre("A0.0", "A0.1", "A1.0"));
  EXPECT_EQ(sim.condition("Ready"), "False/QuotaExceeded");
  EXPECT_EQ(refused_group(sim)["phase"], "Pending");
  sim.run(20);
  EXPECT_THAT(sim.pods(), ElementsAre("A0.0", "A0.1"));
  EXPECT_EQ(sim.status()["backoff"]["reason"], "Unschedulable");
  EXPECT_THAT(sim.message("Degraded"), HasSubstr("gave back what it held"));
  EXPECT_THAT(sim.message("Degraded"), HasSubstr("exceeded quota: pods"));
  // It is tried again, for as long as the first time, and then later.
  sim.run(60);
  EXPECT_THAT(sim.pods(), ElementsAre("A0.0", "A0.1", "A1.0"));
  sim.run(200);
  EXPECT_THAT(sim.pods(), Contains("A1.0"));
  sim.run(120);
  EXPECT_EQ(sim.status()["backoff"]["count"], 2);
  EXPECT_EQ(made(sim, "A1.0"), 2);
  sim.quota = 4;
  sim.run(300);
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
  EXPECT_FALSE(sim.status().contains("backoff"));
}

TEST_F(History, a_group_that_served_has_as_long_for_its_lost_pod_to_be_let_in) {
  ready();
  sim.run(900);
  sim.quota = 3;
  sim.remove_pod("A0.1");
  sim.run(250);
  EXPECT_THAT(sim.pods(), ElementsAre("A0.0", "A1.0", "A1.1"));
  EXPECT_THAT(sim.message("Degraded"), HasSubstr("exceeded quota: pods"));
  sim.quota = 4;
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.history(), Not(Contains(HasSubstr("-A0.0"))));
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
}

TEST_F(History, a_group_that_is_refused_whole_is_named_and_told_once) {
  sim.quota = 2;
  sim.run(200);
  EXPECT_EQ(refused_group(sim)["phase"], "Pending");
  EXPECT_THAT(refused_group(sim)["message"].get<std::string>(), HasSubstr("exceeded quota: pods"));
  EXPECT_EQ(sim.status()["groups"].size(), 2U);
  EXPECT_EQ(sim.status()["replicas"], 1);
  EXPECT_EQ(std::ranges::count(sim.events(), "QuotaExceeded"), 1);
  EXPECT_EQ(std::ranges::count(sim.events(), "GroupCreated"),
            2);  // the refused one at its first try
  sim.scale(1);
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(sim.status()["groups"].size(), 1U);
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
}

}  // namespace
}  // namespace dsm::plan
