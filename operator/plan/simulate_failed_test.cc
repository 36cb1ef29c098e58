// Histories of pods that fail as a whole, so that no kubelet starts them again.
#include "operator/plan/simulate_fixture.h"

namespace dsm::plan {
namespace {

int made(const Simulation& sim, const std::string& pod) {
  return static_cast<int>(std::ranges::count_if(sim.history(), [&](const std::string& line) {
    return line.find("+" + pod) != std::string::npos;
  }));
}

TEST_F(History, a_pod_that_a_node_does_not_take_goes_to_another_one) {
  ready();
  sim.refusing_nodes = {"node-0"};
  sim.remove_pod("A0.1");
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
  EXPECT_EQ(sim.pod("A0.1")["spec"]["nodeName"], "spare-0");
  EXPECT_EQ(sim.status()["avoidedNodes"][0]["name"], "node-0");
  EXPECT_EQ(made(sim, "A0.1"), 2);
  EXPECT_THAT(sim.history(), Not(Contains(HasSubstr("-A0.0"))));
}

constexpr const char* kLostGpu =
    "DeviceLost: rank 1: GPU 3: Xid 79 (GPU has fallen off the bus): restart the node";

TEST_F(History, a_pod_whose_gpu_is_lost_is_made_again_at_once_and_its_group_keeps_the_others) {
  ready();
  sim.crash_pod("A0.1", kLostGpu);
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
  EXPECT_EQ(sim.pod("A0.1")["spec"]["nodeName"], "spare-0");
  EXPECT_EQ(sim.pod("A0.1")["status"]["containerStatuses"][0]["restartCount"], 0);
  EXPECT_EQ(sim.status()["avoidedNodes"][0]["name"], "node-0");
  EXPECT_THAT(sim.history(), Not(Contains(HasSubstr("-A0.0"))));
  EXPECT_THAT(sim.events(), Contains("PodReplaced"));
}

TEST_F(History, a_pod_that_waits_for_another_gpu_is_not_forgotten_when_its_container_starts_again) {
  ready();
  sim.crash_pod("A0.1", kLostGpu);
  sim.run(3);
  sim.crash_pod("A0.1", kLostGpu);
  sim.run(4);
  EXPECT_EQ(made(sim, "A0.1"), 1) << "the second time it waits until 10 s after its making";
  sim.crash_pod("A0.1", "DeviceError: GPU 3: no such device");
  sim.run(1);
  EXPECT_THAT(sim.message("Degraded"), HasSubstr("Xid 79"));
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(made(sim, "A0.1"), 2);
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
  EXPECT_EQ(sim.status()["groups"][0]["recentRestarts"], 2);
  EXPECT_THAT(sim.history(), Not(Contains(HasSubstr("-A0.0"))));
}

TEST_F(History, groups_whose_gpus_are_all_lost_are_made_anew_ever_more_seldom) {
  sim.edit({{"parallelism", {{"tensor", 2}, {"ranksPerPod", 2}}}});
  ready();
  sim.last_words = kLostGpu;
  sim.bad_nodes = {"node-0", "node-1", "spare-0", "spare-1", "node-2", "spare-2"};
  sim.run(60);
  EXPECT_THAT(sim.message("Degraded"), HasSubstr("Xid 79"));
  sim.run(540);
  EXPECT_GE(made(sim, "A"), 6);
  EXPECT_LE(made(sim, "A"), 12) << "two groups, later each time";
  sim.bad_nodes.clear();
  sim.run(400);
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
}

TEST_F(History, a_pod_that_fails_everywhere_is_made_ever_more_seldom_and_then_its_group_anew) {
  ready();
  sim.refusing_nodes = {"node-0", "spare-0"};
  sim.remove_pod("A0.1");
  sim.run(100);
  EXPECT_EQ(sim.condition("Degraded"), "True/PodLost");
  EXPECT_THAT(sim.message("Degraded"), HasSubstr("UnexpectedAdmissionError"));
  EXPECT_GE(made(sim, "A0.1"), 4);
  EXPECT_LE(made(sim, "A0.1"), 6);
  // Five of them are put up with (spec.recovery.maxRestarts).
  sim.run(200);
  EXPECT_LE(made(sim, "A0.1"), 7);
  EXPECT_THAT(sim.pods(), ElementsAre("A1.0", "A1.1", "A2.0", "A2.1"));
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
  EXPECT_EQ(sim.status()["backoff"]["reason"], "CrashLoop");
  EXPECT_THAT(sim.status()["backoff"]["message"].get<std::string>(),
              HasSubstr("UnexpectedAdmissionError"));
}

TEST_F(History, groups_whose_pods_all_fail_are_made_anew_ever_more_seldom) {
  sim.edit({{"parallelism", {{"tensor", 2}, {"ranksPerPod", 2}}}});
  ready();
  sim.refusing_nodes = {"node-0", "node-1", "spare-0", "spare-1", "node-2", "spare-2"};
  sim.remove_pod("A0.0");
  sim.run(60);
  EXPECT_EQ(sim.condition("Stalled"), "False/AsWanted");
  EXPECT_EQ(sim.condition("Degraded"), "True/PodLost");
  EXPECT_THAT(sim.message("Degraded"), HasSubstr("no healthy devices"));
  sim.run(540);
  // At once, and then 10, 20, 40, 80, 160 and 300 s after one another.
  EXPECT_GE(made(sim, "A"), 6);
  EXPECT_LE(made(sim, "A"), 9);
  EXPECT_EQ(sim.status()["backoff"]["reason"], "PodLost");
  EXPECT_EQ(sim.condition("Stalled"), "True/PodLost");
  EXPECT_EQ(sim.status()["readyReplicas"], 1);
  sim.refusing_nodes.clear();
  sim.run(400);
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
  EXPECT_EQ(sim.condition("Stalled"), "False/AsWanted");
  // It is over when all have been stable.
  sim.run(700);
  EXPECT_FALSE(sim.status().contains("backoff"));
}

TEST_F(History, what_an_administrator_deletes_is_not_held_against_the_group) {
  ready();
  for (int i = 0; i < 10; ++i) {
    sim.remove_pod("A0.1");
    sim.run(10);
  }
  EXPECT_EQ(made(sim, "A0.1"), 10);
  EXPECT_EQ(sim.status()["groups"][0]["recentRestarts"], 0);
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
}

}  // namespace
}  // namespace dsm::plan
