// Whole histories of one model as tables: what is written when, and what must hold in between.
#include "operator/plan/simulate_fixture.h"

namespace dsm::plan {
namespace {

TEST_F(History, a_model_is_created) {
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.history(),
              ElementsAre("0s Ready=Unknown/FirstVisit",
                          "1s +A0.0 +A0.1 +A1.0 +A1.1 Ready=False/CreatingGroups",
                          "2s Ready=False/LoadingWeights", "4s Ready=True/AllGroupsReady"));
  EXPECT_EQ(sim.status()["ready"], "2/2");
  EXPECT_EQ(sim.status()["replicas"], 2);
  EXPECT_EQ(sim.status()["capacity"]["kvTokens"], 2000);
  EXPECT_EQ(sim.status()["capacity"]["maxContext"], 512);
  EXPECT_EQ(sim.status()["currentRevision"], sim.status()["updatedRevision"]);
  EXPECT_EQ(sim.condition("Progressing"), "False/AsWanted");
  EXPECT_EQ(sim.condition("Degraded"), "False/AsWanted");
  EXPECT_EQ(sim.condition("Stalled"), "False/AsWanted");
  EXPECT_THAT(sim.events(),
              ElementsAre("GroupCreated", "GroupCreated", "GroupReady", "GroupReady", "Ready"));
}

TEST_F(History, nothing_is_written_or_looked_at_once_it_is_as_wanted) {
  ready();
  const int writes = sim.writes();
  const int looks = sim.looks();
  sim.run(900);
  EXPECT_EQ(sim.writes(), writes);
  EXPECT_EQ(sim.looks(), looks);
}

TEST_F(History, scaling_up_and_down_drains_the_least_busy_group_leader_first) {
  ready();
  sim.scale(3);
  sim.run(20);
  sim.work = {{"A0.0", 5}, {"A1.0", 1}, {"A2.0", 9}};
  sim.scale(1);
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(
      sim.history(),
      ElementsAre("100s +A2.0 +A2.1 Ready=False/CreatingGroups", "101s Ready=False/LoadingWeights",
                  "103s Ready=True/AllGroupsReady", "120s -A1.0 -A0.0", "123s -A1.1 -A0.1"));
  EXPECT_THAT(sim.pods(), ElementsAre("A2.0", "A2.1"));
}

TEST_F(History, scaling_up_during_a_drain_takes_the_group_back) {
  ready();
  sim.scale(1);
  sim.run(1);
  sim.scale(2);
  EXPECT_TRUE(sim.settle());
  // The leader goes, because it was told to; its rank 1 stays and keeps its weights.
  EXPECT_THAT(sim.history(), Contains("100s -A1.0"));
  EXPECT_THAT(sim.history(), Contains(HasSubstr("+A1.0")));
  EXPECT_THAT(sim.history(), Not(Contains(HasSubstr("-A1.1"))));
  EXPECT_THAT(sim.pods(), ElementsAre("A0.0", "A0.1", "A1.0", "A1.1"));
}

TEST_F(History, a_new_image_rolls_group_by_group_and_never_below_what_is_wanted) {
  ready();
  sim.least_ready = 2;
  sim.edit({{"image", "worker:2"}});
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.history(), ElementsAre("100s Ready=False/RollingUpdate", "101s +B0.0 +B0.1",
                                         "104s -A0.0", "107s -A0.1", "108s +B1.0 +B1.1",
                                         "111s -A1.0 Ready=True/AllGroupsReady", "114s -A1.1"));
  EXPECT_THAT(sim.events(), Contains("RolloutComplete"));
  EXPECT_EQ(sim.pod("B0.0")["spec"]["containers"][0]["image"], "worker:2");
}

TEST_F(History, the_ready_condition_is_never_true_while_old_groups_serve) {
  ready();
  sim.edit({{"model", {{"revision", "second"}}}});
  for (int i = 0; i < 60; ++i) {
    sim.run(1);
    if (sim.condition("Ready") != "True/AllGroupsReady") continue;
    EXPECT_EQ(sim.status()["currentRevision"], sim.status()["updatedRevision"]);
    EXPECT_EQ(sim.status()["updatedReplicas"], 2);
  }
}

TEST_F(History, a_revert_midway_goes_back_to_the_groups_that_serve) {
  ready();
  sim.least_ready = 2;
  sim.edit({{"image", "worker:2"}});
  sim.run(3);
  sim.edit({{"image", nullptr}});
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.history(), ElementsAre("100s Ready=False/RollingUpdate", "101s +B0.0 +B0.1",
                                         "103s -B0.0 Ready=True/AllGroupsReady", "106s -B0.1"));
  EXPECT_THAT(sim.pods(), ElementsAre("A0.0", "A0.1", "A1.0", "A1.1"));
}

TEST_F(History, a_storm_of_edits_ends_with_the_last_one_only) {
  ready();
  sim.least_ready = 2;
  for (int i = 0; i < 20; ++i) {
    sim.edit({{"engine", {{"maxNumSeqs", i + 1}}}});
    sim.run(1);
  }
  EXPECT_TRUE(sim.settle());
  const std::string revision = sim.status()["updatedRevision"];
  EXPECT_EQ(sim.status()["currentRevision"], revision);
  EXPECT_EQ(sim.pods().size(), 4U);
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
  // Old revisions do not pile up: the one in use and five for a revert.
  const auto revisions = std::ranges::count_if(
      sim.children(), [](const json& c) { return c["kind"] == "ControllerRevision"; });
  EXPECT_LE(revisions, 6);
}

TEST_F(History, ten_edits_in_one_second_make_one_revision) {
  ready();
  for (int i = 0; i < 10; ++i) sim.edit({{"engine", {{"maxNumSeqs", i + 1}}}});
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.history(), Contains("101s +B0.0 +B0.1"));
  EXPECT_THAT(sim.pods(), ElementsAre("B0.0", "B0.1", "B1.0", "B1.1"));
}

TEST_F(History, an_operator_with_another_default_image_rolls_nothing) {
  ready();
  sim.config.worker_image = "worker:9";
  sim.scale(3);
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(sim.pod("A2.0")["spec"]["containers"][0]["image"], "worker:1");
  EXPECT_EQ(sim.pods().size(), 6U);
}

TEST_F(History, a_deleted_pod_is_made_again_under_its_name_and_its_group_stays) {
  ready();
  sim.remove_pod("A0.1");
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.history(),
              ElementsAre("100s Ready=False/PodLost", "101s +A0.1", "102s Ready=False/Rendezvous",
                          "104s Ready=True/AllGroupsReady"));
  // Each thing is told once: not every station of the way back.
  EXPECT_THAT(sim.events(), ElementsAre("GroupCreated", "GroupCreated", "GroupReady", "GroupReady",
                                        "Ready", "PodLost", "PodReplaced", "GroupReady", "Ready"));
}

TEST_F(History, a_deleted_leader_is_made_again_and_the_other_rank_stays) {
  ready();
  sim.remove_pod("A0.0");
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.history(), Contains("103s +A0.0"));
  EXPECT_THAT(sim.history(), Not(Contains(HasSubstr("-A0.1"))));
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
}

TEST_F(History, an_evicted_pod_is_cleared_away_and_made_again) {
  ready();
  sim.fail_pod("A1.1");
  sim.run(1);
  EXPECT_EQ(sim.condition("Degraded"), "True/PodLost");
  EXPECT_THAT(sim.message("Degraded"), HasSubstr("Evicted: the node was low on memory"));
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.history(), Contains(HasSubstr("+A1.1")));
  EXPECT_EQ(sim.condition("Degraded"), "False/AsWanted");
}

TEST_F(History, a_crashed_rank_is_left_to_the_kubelet) {
  ready();
  sim.crash_pod("A0.1");
  sim.run(1);
  EXPECT_EQ(sim.condition("Degraded"), "True/CrashLoop");
  EXPECT_EQ(sim.condition("Progressing"), "True/Recovering");
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
  for (const auto& line : sim.history()) EXPECT_THAT(line, Not(HasSubstr("+A")));
}

TEST_F(History, a_bad_image_crash_loops_beside_the_groups_that_serve) {
  ready();
  sim.least_ready = 2;
  sim.bad_image = "worker:bad";
  sim.edit({{"image", "worker:bad"}});
  sim.run(20);
  EXPECT_EQ(sim.condition("Ready"), "False/CrashLoop");
  EXPECT_EQ(sim.condition("Degraded"), "True/CrashLoop");
  EXPECT_THAT(sim.message("Ready"), HasSubstr("no such model"));
  EXPECT_EQ(sim.status()["readyReplicas"], 2);
  // It is replaced whole, ever more seldom, and then said to be stalled.
  sim.run(900);
  EXPECT_EQ(sim.condition("Stalled"), "True/CrashLoop");
  const auto made = std::ranges::count_if(
      sim.history(), [](const std::string& line) { return line.find("+B") != std::string::npos; });
  EXPECT_GE(made, 3);
  EXPECT_LE(made, 6);
  // Mending the spec is all it takes.
  sim.edit({{"image", "worker:3"}});
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
  EXPECT_EQ(sim.condition("Stalled"), "False/AsWanted");
}

TEST_F(History, a_pod_on_a_lost_node_costs_its_group_which_is_made_again_elsewhere) {
  sim.config.watches_nodes = false;  // the node is not seen, only that the pod does not go
  ready();
  sim.lose_node("A0.1");
  sim.run(134);
  EXPECT_THAT(sim.pods(), ElementsAre("A0.0", "A0.1", "A1.0", "A1.1"));
  sim.run(30);
  // 75 s of grace and a minute more; then the survivor goes too and a new group comes.
  EXPECT_THAT(sim.history(), ElementsAre("100s Ready=False/PodLost", HasSubstr("-A0.0 +A2.0 +A2.1"),
                                         HasSubstr("Ready="), HasSubstr("Ready=")));
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
  const json avoid = sim.pod("A2.0")["spec"]["affinity"]["nodeAffinity"]
                                    ["preferredDuringSchedulingIgnoredDuringExecution"];
  EXPECT_EQ(avoid[0]["preference"]["matchFields"][0]["values"], json::array({"node-0"}));
}

TEST_F(History, a_surge_group_without_room_is_taken_away_and_said_so) {
  ready();
  sim.least_ready = 2;
  sim.room = 4;
  sim.edit({{"image", "worker:2"}});
  sim.run(59);
  EXPECT_EQ(sim.condition("Stalled"), "False/AsWanted");
  EXPECT_EQ(sim.condition("Degraded"), "True/Unschedulable");
  EXPECT_THAT(sim.message("Degraded"), HasSubstr("0/1 nodes: no cpu"));
  sim.run(10);
  EXPECT_EQ(sim.condition("Stalled"), "True/SurgeUnschedulable");
  EXPECT_EQ(sim.condition("Ready"), "False/SurgeUnschedulable");
  EXPECT_EQ(sim.status()["ready"], "2/2");
  EXPECT_THAT(sim.pods(), ElementsAre("A0.0", "A0.1", "A1.0", "A1.1"));
  // It is tried again after five minutes; with room it goes on.
  sim.room = 8;
  EXPECT_TRUE(sim.settle(1200) || sim.condition("Ready") == "True/AllGroupsReady");
  sim.run(400);
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
  EXPECT_EQ(sim.condition("Stalled"), "False/AsWanted");
  EXPECT_FALSE(sim.status().contains("backoff"));
}

TEST_F(History, with_max_unavailable_an_old_group_makes_room) {
  ready();
  sim.least_ready = 1;
  sim.room = 4;
  sim.edit({{"image", "worker:2"}, {"rollout", {{"maxUnavailable", 1}}}});
  sim.run(400);
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
  EXPECT_THAT(sim.pods(), ElementsAre("B0.0", "B0.1", "B1.0", "B1.1"));
}

TEST_F(History, without_surge_one_group_goes_first) {
  sim.edit({{"rollout", {{"maxSurge", 0}, {"maxUnavailable", 1}}}});
  ready();
  sim.least_ready = 1;
  sim.room = 4;
  sim.edit({{"image", "worker:2"}});
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
}

TEST_F(History, a_group_that_is_placed_by_half_gives_back_what_it_holds) {
  sim.room = 3;
  sim.run(300);
  EXPECT_THAT(sim.pods(), ElementsAre("A0.0", "A0.1", "A1.0", "A1.1"));
  EXPECT_EQ(sim.condition("Ready"), "False/Unschedulable");
  sim.run(10);
  EXPECT_THAT(sim.pods(), ElementsAre("A0.0", "A0.1"));
  EXPECT_EQ(sim.status()["backoff"]["reason"], "Unschedulable");
  EXPECT_THAT(sim.message("Degraded"), HasSubstr("gave back what it held"));
  // It is tried again, and again only later when there is still no room.
  sim.run(60);
  EXPECT_EQ(sim.pods().size(), 4U);
  sim.run(360);
  EXPECT_EQ(sim.status()["backoff"]["count"], 2);
  sim.room = 4;
  sim.run(200);
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
  EXPECT_FALSE(sim.status().contains("backoff"));
}

TEST_F(History, a_group_that_holds_nothing_waits_where_an_autoscaler_sees_it) {
  sim.room = 2;
  sim.run(900);
  EXPECT_THAT(sim.pods(), ElementsAre("A0.0", "A0.1", "A1.0", "A1.1"));
  EXPECT_EQ(sim.condition("Degraded"), "True/Unschedulable");
}

TEST_F(History, a_service_of_somebody_else_is_left_alone_and_the_rest_goes_on) {
  sim.foreign = {"Service/m"};
  sim.run(30);
  EXPECT_EQ(sim.condition("Ready"), "False/NameConflict");
  EXPECT_EQ(sim.condition("Stalled"), "True/NameConflict");
  EXPECT_THAT(sim.message("Ready"), HasSubstr("Service m belongs to somebody else"));
  EXPECT_EQ(sim.status()["readyReplicas"], 2);
  sim.foreign.clear();
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
}

TEST_F(History, a_foreign_pod_name_is_stepped_over) {
  sim.run(1);
  const std::string revision = sim.status()["updatedRevision"];
  sim.foreign = {"Pod/m-" + revision + "-0-1"};
  sim.run(120);
  EXPECT_EQ(sim.status()["readyReplicas"], 1);
  EXPECT_EQ(sim.condition("Ready"), "False/NameConflict");
  EXPECT_THAT(sim.message("Ready"), HasSubstr("-0-1 belongs to somebody else"));
}

TEST_F(History, a_quota_is_said_in_its_own_words_and_retried) {
  sim.quota = 2;
  sim.run(30);
  EXPECT_EQ(sim.condition("Ready"), "False/QuotaExceeded");
  EXPECT_THAT(sim.message("Degraded"), HasSubstr("exceeded quota: pods"));
  EXPECT_EQ(sim.status()["readyReplicas"], 1);
  sim.quota = 4;
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
}

TEST_F(History, a_changed_service_is_mended) {
  ready();
  const auto service = [&] {
    const auto it = std::ranges::find_if(
        sim.children(), [](const json& c) { return c["metadata"]["name"] == "m"; });
    return (*it)["spec"];
  };
  const json before = service();
  // Another port, another target of ours, a selector that nothing fulfils.
  for (const json& change :
       {json{{"ports", {{{"name", "x"}, {"port", 9}}}}},
        json{{"ports", {{{"name", "http"}, {"port", 80}, {"protocol", "TCP"}}}}},
        json{{"selector", {{"nobody", "has"}}}}}) {
    sim.drift("m", {{"spec", change}});
    ASSERT_NE(service(), before);
    EXPECT_TRUE(sim.settle());
    EXPECT_EQ(service(), before) << change;
  }
  EXPECT_EQ(sim.condition("Degraded"), "False/AsWanted");
}

TEST_F(History, the_grpc_port_comes_and_goes_with_the_spec) {
  ready();
  const auto ports = [&] {
    const auto it = std::ranges::find_if(
        sim.children(), [](const json& c) { return c["metadata"]["name"] == "m"; });
    return (*it)["spec"]["ports"].size();
  };
  EXPECT_EQ(ports(), 1U);
  sim.edit({{"engine", {{"grpc", true}}}});
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(ports(), 2U);
  sim.edit({{"parallelism", {{"tensor", 3}}}});
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(ports(), 2U) << "a wrong spec takes nothing away";
  sim.edit({{"parallelism", {{"tensor", 2}}}, {"engine", {{"grpc", false}}}});
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(ports(), 1U);
}

TEST_F(History, a_spec_that_became_wrong_keeps_what_serves) {
  ready();
  sim.least_ready = 1;
  sim.edit({{"parallelism", {{"tensor", 3}}}});
  sim.run(1);
  EXPECT_EQ(sim.condition("Ready"), "False/InvalidSpec");
  EXPECT_EQ(sim.condition("Stalled"), "True/InvalidSpec");
  EXPECT_EQ(sim.message("Ready"), "spec.parallelism.tensor: is 3; use 1, 2, 4 or 8");
  sim.remove_pod("A0.1");
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.pods(), ElementsAre("A0.0", "A0.1", "A1.0", "A1.1"));
  sim.edit({{"parallelism", {{"tensor", 2}}}});
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
}

TEST_F(History, a_wrong_spec_makes_no_pods) {
  sim.edit({{"model", {{"uri", "hf://x"}}}});
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.pods(), IsEmpty());
  EXPECT_EQ(sim.condition("Ready"), "False/InvalidSpec");
}

TEST_F(History, a_model_that_is_being_deleted_is_left_to_the_garbage_collector) {
  ready();
  const int writes = sim.writes();
  sim.delete_model();
  sim.remove_pod("A0.0");
  sim.run(60);
  EXPECT_EQ(sim.writes(), writes);
}

TEST_F(History, zero_replicas_run_nothing_and_that_is_as_wanted) {
  ready();
  sim.scale(0);
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.pods(), IsEmpty());
  EXPECT_EQ(sim.condition("Ready"), "True/ScaledToZero");
  EXPECT_EQ(sim.status()["ready"], "0/0");
}

TEST_F(History, ranks_in_one_pod_need_no_second_pod) {
  sim.edit({{"parallelism", {{"tensor", 2}, {"ranksPerPod", 2}}}});
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.pods(), ElementsAre("A0.0", "A1.0"));
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
}

}  // namespace
}  // namespace dsm::plan
