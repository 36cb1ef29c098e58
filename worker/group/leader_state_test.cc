#include "worker/group/leader_state.h"

#include <gtest/gtest.h>

namespace dsm::group {
namespace {

const GroupOptions kOptions = [] {
  GroupOptions options;
  options.tensor_parallel = 4;
  options.ranks_per_pod = 2;
  return options;
}();

RankState rank(int number, Phase phase, const std::string& error = "") {
  RankState state;
  state.rank = number;
  state.phase = phase;
  state.error = error;
  state.reason = error.empty() ? "" : "Why";
  return state;
}

// Both pods are here and connect.
LeaderView both() {
  LeaderView view;
  view.local = {rank(0, Phase::kRendezvous), rank(1, Phase::kRendezvous)};
  view.pods[1] = {rank(2, Phase::kRendezvous), rank(3, Phase::kRendezvous)};
  view.stage = Stage::kConnecting;
  return view;
}

TEST(LeaderState, APodThatIsNotConnectedIsNamedAndItsRanksAreListed) {
  LeaderView view = both();
  view.pods.clear();
  view.stage = Stage::kWaiting;
  const GroupState s = state_of(kOptions, view);
  EXPECT_EQ(s.reason, "WaitingForPods");
  EXPECT_EQ(s.message, "waiting for pod 1 of the group");
  ASSERT_EQ(s.ranks.size(), 4U);
  EXPECT_EQ(s.ranks[3], rank(3, Phase::kStarting));
  view.pods[1] = {};  // it is here, and has told nothing yet
  EXPECT_EQ(state_of(kOptions, view).reason, "Connecting");
  EXPECT_EQ(state_of(kOptions, view).ranks[3].phase, Phase::kStarting);
}

TEST(LeaderState, LoadingGoesBeforeWaiting) {
  LeaderView view = both();
  view.pods.clear();
  view.stage = Stage::kWaiting;
  view.local[1].phase = Phase::kLoading;
  EXPECT_EQ(state_of(kOptions, view).reason, "LoadingWeights");
  EXPECT_EQ(state_of(kOptions, view).phase, Phase::kLoading);
}

TEST(LeaderState, IsReadyOnlyOnceTheEngineKnowsTheEpoch) {
  LeaderView view = both();
  EXPECT_EQ(state_of(kOptions, view).phase, Phase::kRendezvous);
  view.stage = Stage::kReady;
  EXPECT_FALSE(state_of(kOptions, view).ready());
  view.engine_knows = true;
  EXPECT_TRUE(state_of(kOptions, view).ready());
}

TEST(LeaderState, MissingAdaptersAreNamedBeforeAnEpochBegins) {
  LeaderView view = both();
  view.adapters = "pod 1 lacks one";
  EXPECT_EQ(state_of(kOptions, view).reason, "Connecting");
  view.stage = Stage::kWaiting;
  EXPECT_EQ(state_of(kOptions, view).reason, "LoadingAdapters");
  EXPECT_EQ(state_of(kOptions, view).message, "pod 1 lacks one");
}

// A rank of another pod that has failed comes back by itself; one of ours needs a new process.
TEST(LeaderState, AFailedRankIsTheGroupsFailureAndEndsItsOwnProcess) {
  LeaderView view = both();
  view.pods[1][0] = rank(2, Phase::kFailed, "no memory");
  GroupState s = state_of(kOptions, view);
  EXPECT_EQ(s.phase, Phase::kFailed);
  EXPECT_EQ(s.reason, "Why");
  EXPECT_EQ(s.message, "rank 2: no memory");
  EXPECT_FALSE(s.ended);
  view.local[0] = rank(0, Phase::kFailed, "no device");
  s = state_of(kOptions, view);
  EXPECT_EQ(s.message, "rank 0: no device");
  EXPECT_TRUE(s.ended);
}

TEST(LeaderState, ACondemnedGroupHasEnded) {
  LeaderView view = both();
  view.stage = Stage::kReady;
  view.engine_knows = true;
  view.condemned = "it answers 4 to 1+1";
  const GroupState s = state_of(kOptions, view);
  EXPECT_EQ(s.phase, Phase::kFailed);
  EXPECT_EQ(s.reason, "ProbeFailed");
  EXPECT_TRUE(s.ended);
}

TEST(LeaderState, IsAsleepWhenAllRanksAre) {
  LeaderView view = both();
  view.stage = Stage::kWaiting;
  view.rest = Rest::kAsleep;
  EXPECT_EQ(state_of(kOptions, view).phase, Phase::kAsleep);
  EXPECT_EQ(state_of(kOptions, view).reason, "FallingAsleep");
  for (auto* ranks : {&view.local, &view.pods[1]}) {
    for (RankState& one : *ranks) one.phase = Phase::kAsleep;
  }
  EXPECT_EQ(state_of(kOptions, view).reason, "Asleep");
  EXPECT_FALSE(state_of(kOptions, view).ended);
  view.rest = Rest::kAwake;
  EXPECT_EQ(state_of(kOptions, view).reason, "Waking");
  EXPECT_EQ(state_of(kOptions, view).phase, Phase::kRendezvous);
  view.pods.clear();
  EXPECT_EQ(state_of(kOptions, view).reason, "WaitingForPods");
}

}  // namespace
}  // namespace dsm::group
