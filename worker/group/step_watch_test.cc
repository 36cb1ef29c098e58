#include "worker/group/step_watch.h"

#include <gtest/gtest.h>

namespace dsm::group {
namespace {

const TimePoint kStart{Seconds(1000)};

TEST(StepWatch, AStepThatGetsOnMayTakeAsLongAsItWill) {
  StepWatch watch(Seconds(8));
  for (int s = 1; s <= 300; ++s) {
    EXPECT_FALSE(watch.hangs(kStart + Seconds(s), kStart, static_cast<std::uint64_t>(s / 5)));
  }
}

TEST(StepWatch, AStepInWhichNobodyGetsOnHangsAfterThePatience) {
  StepWatch watch(Seconds(8));
  EXPECT_FALSE(watch.hangs(kStart + Seconds(1), kStart, 7));
  EXPECT_FALSE(watch.hangs(kStart + Seconds(9), kStart, 7));
  EXPECT_TRUE(watch.hangs(kStart + Seconds(9) + Millis(1), kStart, 7));
}

// Time without a step is no time in which a rank stands still.
TEST(StepWatch, AStepHasItsWholePatienceFromItsBeginning) {
  StepWatch watch(Seconds(8));
  watch.hangs(kStart, kStart, 7);
  watch.ended(kStart + Millis(10), kStart);
  const TimePoint next = kStart + Seconds(100);
  EXPECT_FALSE(watch.hangs(next + Seconds(8), next, 7));
  EXPECT_TRUE(watch.hangs(next + Seconds(9), next, 7));
  EXPECT_EQ(watch.limit(), Seconds(8));
}

TEST(StepWatch, WhereRanksAreSeenToStandStillForLongItIsMorePatient) {
  StepWatch watch(Seconds(8));
  EXPECT_FALSE(watch.hangs(kStart, kStart, 1));
  EXPECT_FALSE(watch.hangs(kStart + Seconds(5), kStart, 2));
  EXPECT_EQ(watch.limit(), Seconds(20));
  EXPECT_FALSE(watch.hangs(kStart + Seconds(25), kStart, 2));
  EXPECT_TRUE(watch.hangs(kStart + Seconds(26), kStart, 2));
  // Of a device that does not show how it gets on, the whole step counts.
  StepWatch blind(Seconds(8));
  blind.ended(kStart + Seconds(6), kStart);
  EXPECT_EQ(blind.limit(), Seconds(24));
}

}  // namespace
}  // namespace dsm::group
