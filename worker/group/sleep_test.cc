// Whole groups over loopback that sleep: all ranks do, whoever comes later does, and awake again
// they answer the same.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "worker/group/group_fixture.h"

namespace dsm::group {
namespace {

using engine::SleepMode;

struct Shape {
  int tensor_parallel;
  int ranks_per_pod;
};

int asleep(const TestGroup& group) {
  int ranks = 0;
  for (const auto& controls : group.controls) ranks += controls->asleep;
  return ranks;
}

::testing::AssertionResult falls_asleep(TestGroup& group) {
  return eventually([&] { return group.leader->state().reason == "Asleep"; });
}

class SleepingGroup : public ::testing::TestWithParam<Shape> {};

TEST_P(SleepingGroup, GivesTheMemoryOfAllRanksBackAndAnswersAgain) {
  TestGroup group(GetParam().tensor_parallel, GetParam().ranks_per_pod);
  group.start();
  ASSERT_TRUE(group.becomes_ready());
  ASSERT_TRUE(group.answers({1, 2, 3}, 20));
  for (int night = 0; night < 2; ++night) {
    group.engine->sleep(SleepMode::kWait);
    ASSERT_TRUE(falls_asleep(group));
    EXPECT_EQ(asleep(group), GetParam().tensor_parallel);
    const GroupState state = group.leader->state();
    EXPECT_EQ(state.phase, Phase::kAsleep);
    EXPECT_TRUE(state.loaded);
    EXPECT_TRUE(state.live);
    EXPECT_FALSE(state.ready());
    EXPECT_FALSE(state.ended);
    EXPECT_EQ(state.last_error, "");
    for (std::size_t pod = 1; pod < group.followers.size(); ++pod) {
      EXPECT_TRUE(eventually([&] { return group.followers[pod]->state().reason == "Asleep"; }));
    }
    group.engine->wake();
    ASSERT_TRUE(group.becomes_ready());
    EXPECT_EQ(asleep(group), 0);
    EXPECT_TRUE(group.answers({1, 2, 3}, 20));
  }
  EXPECT_EQ(group.controls[0]->loads, GetParam().ranks_per_pod) << "weights are kept";
}

INSTANTIATE_TEST_SUITE_P(Shapes, SleepingGroup,
                         ::testing::Values(Shape{1, 1}, Shape{4, 4}, Shape{2, 1}, Shape{4, 2}),
                         [](const auto& param_info) {
                           return "Tp" + std::to_string(param_info.param.tensor_parallel) + "Per" +
                                  std::to_string(param_info.param.ranks_per_pod);
                         });

TEST(Sleep, FinishesRequestsFirst) {
  TestGroup group(2, 1);
  group.start();
  ASSERT_TRUE(group.becomes_ready());
  Request request(*group.engine, {5, 6}, 200);
  ASSERT_TRUE(eventually([&] { return request.received() > 3; }));
  group.engine->sleep(SleepMode::kWait);
  ASSERT_TRUE(eventually([&] { return request.finished().has_value(); }));
  EXPECT_EQ(request.tokens(), FakeModel::answer({5, 6}, 200));
  EXPECT_TRUE(falls_asleep(group));
}

TEST(Sleep, APodThatIsLostMeanwhileLoadsAndSleepsAgain) {
  TestGroup group(2, 1);
  group.start();
  ASSERT_TRUE(group.becomes_ready());
  group.engine->sleep(SleepMode::kWait);
  ASSERT_TRUE(falls_asleep(group));
  group.followers[1].reset();
  ASSERT_TRUE(eventually([&] { return group.leader->state().reason == "WaitingForPods"; }));
  group.controls[1] = std::make_shared<Controls>();
  group.start_follower(1);
  ASSERT_TRUE(falls_asleep(group));
  EXPECT_EQ(asleep(group), 2);
  group.engine->wake();
  ASSERT_TRUE(group.becomes_ready());
  EXPECT_TRUE(group.answers({1, 2, 3}, 20));
}

TEST(Sleep, AnotherLeaderWakesThePodsThatItFindsAsleep) {
  TestGroup group(2, 1);
  group.start();
  ASSERT_TRUE(group.becomes_ready());
  group.engine->sleep(SleepMode::kWait);
  ASSERT_TRUE(falls_asleep(group));
  group.stop_leader();
  EXPECT_EQ(group.controls[1]->asleep, 1) << "nobody has said otherwise";
  group.controls[0] = std::make_shared<Controls>();
  group.start_leader();  // on the same port
  ASSERT_TRUE(group.becomes_ready());
  EXPECT_EQ(asleep(group), 0);
  EXPECT_TRUE(group.answers({1, 2, 3}, 20));
}

TEST(Sleep, BeforeTheGroupHasEverMetNeedsNoMeeting) {
  TestGroup group(2, 1);
  group.start_leader();
  group.engine->sleep(SleepMode::kWait);
  ASSERT_TRUE(eventually([&] { return group.controls[0]->asleep == 1; }));
  group.start_follower(1);
  ASSERT_TRUE(falls_asleep(group));
  EXPECT_EQ(group.leader->state().epoch, 0U);
  group.engine->wake();
  ASSERT_TRUE(group.becomes_ready());
  EXPECT_TRUE(group.answers({1, 2, 3}, 20));
}

TEST(Sleep, ShowsThatItWakes) {
  TestGroup group(2, 1);
  group.start();
  ASSERT_TRUE(group.becomes_ready());
  group.engine->sleep(SleepMode::kWait);
  ASSERT_TRUE(falls_asleep(group));
  group.controls[1]->hold_wake = true;
  group.engine->wake();
  ASSERT_TRUE(eventually([&] { return group.leader->state().reason == "Waking"; }));
  EXPECT_EQ(group.leader->state().phase, Phase::kRendezvous);
  ASSERT_TRUE(eventually([&] { return group.leader->state().ranks[1].phase == Phase::kWaking; }));
  // And sleeps again when that is wanted now.
  group.engine->sleep(SleepMode::kWait);
  ASSERT_TRUE(eventually([&] { return group.leader->state().phase == Phase::kAsleep; }));
  EXPECT_EQ(group.leader->state().reason, "FallingAsleep") << "a rank has its memory";
  group.controls[1]->hold_wake = false;
  group.controls[1]->hold_wake.notify_all();
  ASSERT_TRUE(falls_asleep(group));
  EXPECT_EQ(asleep(group), 2);
}

TEST(Sleep, ARankThatGetsNoMemoryToWakeStartsAnew) {
  TestGroup group(2, 1);
  group.start();
  ASSERT_TRUE(group.becomes_ready());
  group.engine->sleep(SleepMode::kWait);
  ASSERT_TRUE(falls_asleep(group));
  group.controls[1]->no_memory_to_wake = true;
  group.engine->wake();
  ASSERT_TRUE(eventually([&] { return group.followers[1]->state().ended; }));
  EXPECT_EQ(group.followers[1]->state().reason, "DeviceError");
  ASSERT_TRUE(eventually([&] { return group.leader->state().reason == "DeviceError"; }));
  EXPECT_FALSE(group.leader->state().ended) << "it keeps its weights";
  group.controls[1]->no_memory_to_wake = false;
  group.followers[1].reset();
  group.start_follower(1);
  ASSERT_TRUE(group.becomes_ready());
  EXPECT_TRUE(group.answers({1, 2, 3}, 20));
}

}  // namespace
}  // namespace dsm::group
