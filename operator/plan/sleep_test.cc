// Groups that sleep: what is said of them, what is left alone, and how they come back.
#include "operator/plan/sleep.h"

#include <algorithm>

#include "operator/api/reasons.h"
#include "operator/plan/simulate_fixture.h"

namespace dsm::plan {
namespace {

class Sleep : public History {
 protected:
  void SetUp() override { ready(); }
  void sleep(bool asleep) { sim.edit({{"sleep", asleep}}); }
  const json& group(std::size_t i) const { return sim.status()["groups"][i]; }
};

TEST_F(Sleep, IsSaidAndIsNoFault) {
  sleep(true);
  ASSERT_TRUE(sim.settle());
  EXPECT_EQ(sim.condition("Ready"), "False/Asleep");
  EXPECT_THAT(sim.message("Ready"), HasSubstr("dsmctl wake"));
  EXPECT_EQ(sim.condition("Progressing"), "False/Asleep");
  EXPECT_EQ(sim.condition("Degraded"), "False/AsWanted");
  EXPECT_EQ(sim.condition("Stalled"), "False/AsWanted");
  EXPECT_EQ(sim.status()["ready"], "0/2");
  EXPECT_EQ(sim.status()["queueDepth"], 0);
  EXPECT_EQ(group(0)["phase"], "Asleep");
  EXPECT_EQ(group(1)["reason"], "Asleep");
  EXPECT_THAT(sim.events(), Contains("Asleep"));
  EXPECT_THAT(sim.pods(), ElementsAre("A0.0", "A0.1", "A1.0", "A1.1"));
  EXPECT_THAT(sim.history(), Not(Contains(HasSubstr("A0")))) << "no pod was written";
}

TEST_F(Sleep, EndsWithoutAWordOfAFault) {
  sleep(true);
  ASSERT_TRUE(sim.settle());
  const int cold_start = sim.status().value("coldStartSeconds", 0);
  sleep(false);
  while (sim.condition("Ready") != "True/AllGroupsReady") {
    ASSERT_LT(sim.now_s(), 1000);
    sim.run(1);
    EXPECT_EQ(sim.condition("Degraded"), "False/AsWanted");
  }
  EXPECT_EQ(sim.status().value("coldStartSeconds", 0), cold_start);
}

TEST_F(Sleep, GroupsOfAnotherRevisionComeAndSleepToo) {
  sleep(true);
  ASSERT_TRUE(sim.settle());
  sim.edit({{"image", "worker:2"}});
  ASSERT_TRUE(sim.settle());
  EXPECT_EQ(sim.condition("Ready"), "False/Asleep");
  EXPECT_THAT(sim.pods(), ElementsAre("B0.0", "B0.1", "B1.0", "B1.1"));
}

// Those that never served, too.
TEST_F(Sleep, GroupsThatWakeAreNotGivenUpInARollout) {
  sleep(true);
  sim.edit({{"image", "worker:2"}});
  ASSERT_TRUE(sim.settle());
  sim.edit({{"image", "worker:3"}, {"rollout", {{"maxSurge", 0}, {"maxUnavailable", 1}}}});
  sim.run(1);
  sleep(false);
  while (sim.condition("Ready") != "True/AllGroupsReady") {
    ASSERT_LT(sim.now_s(), 1000);
    sim.run(1);
    EXPECT_GE(std::ranges::count_if(sim.all_pods(), leads_standing_group), 1) << sim.now_s();
  }
}

TEST_F(Sleep, ARankThatIsLostIsMadeAgainAndSleeps) {
  sleep(true);
  ASSERT_TRUE(sim.settle());
  sim.remove_pod("A0.1");
  sim.run(2);
  EXPECT_EQ(sim.condition("Degraded").substr(0, 4), "True");
  ASSERT_TRUE(sim.settle());
  EXPECT_THAT(sim.pods(), ElementsAre("A0.0", "A0.1", "A1.0", "A1.1"));
  EXPECT_EQ(sim.condition("Ready"), "False/Asleep");
  EXPECT_EQ(sim.condition("Degraded"), "False/AsWanted");
}

TEST_F(Sleep, GroupsCanBeAddedAndTakenAway) {
  sleep(true);
  sim.scale(3);
  ASSERT_TRUE(sim.settle());
  EXPECT_EQ(sim.pods().size(), 6U);
  sim.scale(1);
  ASSERT_TRUE(sim.settle());
  EXPECT_EQ(sim.pods().size(), 2U);
  EXPECT_EQ(sim.condition("Ready"), "False/Asleep");
}

LeaderStatus line(const std::string& phase, bool told) {
  LeaderStatus status;
  status.phase = phase;
  status.message = "words";
  status.told_to_sleep = told;
  return status;
}

TEST(SleepCause, TellsAGroupThatSleepsFromOneThatFinishesItsRequests) {
  LeaderStatus leader = line("Asleep", true);
  leader.reason = "FallingAsleep";
  const Cause falls = sleep_cause(leader).value_or(Cause{});
  EXPECT_EQ(falls.reason, api::kFallingAsleep);
  EXPECT_EQ(falls.phase, "Asleep");
  EXPECT_TRUE(sleeps(falls));
  leader.reason = "Asleep";
  EXPECT_EQ(sleep_cause(leader).value_or(Cause{}).reason, api::kAsleep);
  EXPECT_FALSE(sleep_cause(line("Ready", true)));
}

api::GroupStatus said(std::string_view reason) {
  api::GroupStatus group;
  group.phase = reason == api::kWaking ? "Starting" : "Asleep";
  group.reason = reason;
  group.message = "said before";
  return group;
}

TEST(SleptCause, LastsWhileTheLeaderIsSilent) {
  for (const std::string_view reason : {api::kFallingAsleep, api::kAsleep, api::kWaking}) {
    const auto before = said(reason);
    const Cause cause = slept_cause(nullptr, &before).value_or(Cause{});
    EXPECT_EQ(cause.reason, reason);
    EXPECT_EQ(cause.phase, before.phase);
    EXPECT_FALSE(cause.hard);
  }
}

TEST(SleptCause, IsWakingUntilTheGroupIsReady) {
  for (const std::string_view reason : {api::kAsleep, api::kWaking}) {
    const auto before = said(reason);
    for (const char* phase : {"Rendezvous", "Ready"}) {
      const LeaderStatus leader = line(phase, false);
      EXPECT_EQ(slept_cause(&leader, &before).value_or(Cause{}).reason, api::kWaking);
    }
  }
}

TEST(SleptCause, IsNoneOfAGroupThatHasSomethingElse) {
  const auto before = said(api::kAsleep);
  const LeaderStatus failed = line("Failed", false);
  EXPECT_FALSE(slept_cause(&failed, &before));
  const LeaderStatus loading = line("Loading", true);
  EXPECT_FALSE(slept_cause(&loading, &before));
  const LeaderStatus waits_for_pods = line("Rendezvous", true);
  EXPECT_FALSE(slept_cause(&waits_for_pods, &before));
  const auto loaded = said(api::kLoadingWeights);
  EXPECT_FALSE(slept_cause(nullptr, &loaded));
  EXPECT_FALSE(slept_cause(nullptr, nullptr));
}

TEST(WantsSleep, IsReadOffTheSpecAsItIs) {
  EXPECT_FALSE(wants_sleep(json::object()));
  EXPECT_FALSE(wants_sleep({{"spec", {{"sleep", "yes"}}}}));
  EXPECT_TRUE(wants_sleep({{"spec", {{"sleep", true}, {"replicas", -1}}}}));
}

}  // namespace
}  // namespace dsm::plan
