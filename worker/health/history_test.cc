// What is remembered of a GPU, and that a judgement does not change with each look.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "worker/health/judge.h"

namespace dsm::health {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

Reading reading(std::uint64_t throttle, unsigned links) {
  Reading now;
  now.device = "GPU 3";
  now.throttle = throttle;
  now.links = links;
  return now;
}

void look(History& history, const Reading& now, int times = 1) {
  for (int i = 0; i < times; ++i) remember(history, now);
}

TEST(History, clocks_that_go_up_and_down_at_the_limit_are_one_problem) {
  History history;
  const Reading hot = reading(kHardwareThermal, 4);
  const Reading cool = reading(0, 4);
  look(history, hot, kHotReadings);
  const DeviceHealth first = judge(hot, history);
  EXPECT_THAT(first.problems, ElementsAre("Hot"));
  for (int round = 0; round < 10; ++round) {
    look(history, cool, kCalmReadings - 1);
    EXPECT_EQ(judge(cool, history).message, first.message);
    look(history, hot);
    EXPECT_EQ(judge(hot, history).message, first.message);
  }
  look(history, cool, kCalmReadings);
  EXPECT_EQ(judge(cool, history).level, Level::kHealthy);
  look(history, hot, kHotReadings - 1);
  EXPECT_EQ(judge(hot, history).level, Level::kHealthy) << "from the beginning";
}

TEST(History, heat_and_a_weak_supply_are_two_problems) {
  History history;
  look(history, reading(kThermal, 4), kHotReadings);
  look(history, reading(kPowerBrake, 4));
  EXPECT_THAT(judge(reading(0, 4), history).problems, ElementsAre("PowerBraked", "Hot"));
}

TEST(History, a_link_that_trains_again_and_again_is_down) {
  History history;
  look(history, reading(0, 18));
  look(history, reading(0, 16));
  const std::string first = judge(reading(0, 16), history).message;
  EXPECT_EQ(first, "GPU 3: 2 of 18 NVLinks are down: reset the GPU, or look at its seat");
  for (const unsigned up : {17U, 18U, 17U, 18U}) {
    look(history, reading(0, up));
    EXPECT_EQ(judge(reading(0, up), history).message, first);
  }
  look(history, reading(0, 18), kCalmReadings);
  EXPECT_EQ(judge(reading(0, 18), history).level, Level::kHealthy);
}

TEST(History, links_that_were_never_up_are_no_problem) {
  History history;
  look(history, reading(0, 0), 2);
  EXPECT_EQ(judge(reading(0, 0), history).level, Level::kHealthy);
}

TEST(Judged, all_that_is_wrong_has_a_name_and_the_worst_is_the_message) {
  History history;
  Reading now = reading(0, 4);
  look(history, now);
  now.links = 3;
  now.rows = {.corrected = 0, .uncorrected = 1, .pending = true, .failed = false};
  now.ecc_uncorrected = 1;
  remember_xid(history, 63);
  remember_xid(history, 31);
  look(history, now);
  const DeviceHealth health = judge(now, history);
  EXPECT_EQ(health.level, Level::kDegraded);
  EXPECT_THAT(health.problems,
              ElementsAre("RowRemapPending", "UncorrectedMemory", "NvlinkDown", "Xid63"));
  EXPECT_THAT(health.xids, ElementsAre(63, 31));
  now.ecc_uncorrected = 1000;
  EXPECT_EQ(judge(now, history).message, health.message) << "numbers that rise are no news";
  now.lost = true;
  const DeviceHealth lost = judge(now, history);
  EXPECT_EQ(lost.level, Level::kFatal);
  EXPECT_EQ(lost.problems.front(), "Lost");
  EXPECT_EQ(lost.problems.size(), health.problems.size() + 1);
}

TEST(Judged, signs_are_told_as_they_were_read) {
  Reading now = reading(kPowerCap, 4);
  now.sm_clock_mhz = 1980;
  now.ecc_corrected = 7;
  const DeviceHealth health = judge(now, History());
  EXPECT_THAT(health.problems, IsEmpty());
  EXPECT_EQ(health.signs, static_cast<const Signs&>(now));
  EXPECT_FALSE(health.signs.rows);
}

}  // namespace
}  // namespace dsm::health
