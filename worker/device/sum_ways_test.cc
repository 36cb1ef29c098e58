#include "worker/device/sum_ways.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

namespace dsm::device {
namespace {

constexpr float kNever = std::numeric_limits<float>::infinity();

// [size][way]
const std::vector<float> kQuickOnes{5,  7,  11,   //
                                    6,  7,  12,   //
                                    12, 9,  15,   //
                                    40, 20, 22,   //
                                    90, 65, 60};  //

TEST(SumWays, TakesTheQuickestOfTheNextLargerSize) {
  const SumWays ways{kQuickOnes};
  EXPECT_EQ(ways.of(16), SumWay::kOneShot);
  EXPECT_EQ(ways.of(4096), SumWay::kOneShot);
  EXPECT_EQ(ways.of(16384), SumWay::kOneShot);
  EXPECT_EQ(ways.of(16385), SumWay::kTwoShot);
  EXPECT_EQ(ways.of(262144), SumWay::kTwoShot);
  EXPECT_EQ(ways.of(262145), SumWay::kLibrary);
  EXPECT_EQ(ways.of(std::int64_t{1} << 40), SumWay::kLibrary);
  EXPECT_EQ(ways.text(), "one shot up to 16384 values, two shots up to 262144, then library");
}

TEST(SumWays, TakesAWayForAsSlowAsItsSlowestRank) {
  std::vector<float> times = kQuickOnes;
  times.insert(times.end(), kQuickOnes.begin(), kQuickOnes.end());
  times[SumWays::kTimes] = 8;  // the second rank, one shot of the smallest
  const SumWays ways{times};
  EXPECT_EQ(ways.of(4096), SumWay::kTwoShot);
  EXPECT_EQ(ways.of(16384), SumWay::kOneShot);
  EXPECT_EQ(ways.text(),
            "two shots up to 4096 values, one shot up to 16384, two shots up to 262144, then "
            "library");
}

// The library is left out of a step that may be recorded, unless it is far quicker.
TEST(SumWays, TakesOwnKernelsInARecordedStep) {
  std::vector<float> times = kQuickOnes;
  const SumWays ways{times};
  EXPECT_EQ(ways.recorded(4096), SumWay::kOneShot);
  EXPECT_EQ(ways.recorded(65536), SumWay::kTwoShot);
  EXPECT_EQ(ways.recorded(1048576), SumWay::kTwoShot);
  times.back() = 40;
  EXPECT_EQ(SumWays{times}.recorded(1048576), SumWay::kLibrary);
  EXPECT_EQ(SumWays{times}.recorded(262144), SumWay::kTwoShot);
  times.back() = kNever;
  EXPECT_EQ(SumWays{times}.recorded(1048576), SumWay::kTwoShot);
}

TEST(SumWays, LeavesOutWhatIsNotToBeTaken) {
  std::vector<float> times = kQuickOnes;
  for (std::size_t i = 2; i < times.size(); i += 3) times[i] = kNever;
  EXPECT_EQ(SumWays{times}.text(), "one shot up to 16384 values, then two shots");
  for (std::size_t i = 0; i < times.size(); ++i) times[i] = i % 3 == 2 ? 1 : kNever;
  EXPECT_EQ(SumWays{times}.text(), "library");
}

}  // namespace
}  // namespace dsm::device
