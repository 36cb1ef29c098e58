// Rounding to FP8 against the list of FP8's values, on every table.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/ops_fixture.h"
#include "kernels/cpu/pack.h"
#include "kernels/ops.h"

namespace dsm::kernels {
namespace {

// The nearest of FP8's values, on a tie the one whose last bit is zero.
float nearest(float x) {
  std::uint8_t best = 0;
  for (std::uint8_t bits = 0; bits < 0x7f; ++bits) {
    const double now = std::abs(static_cast<double>(from_e4m3(bits)) - std::abs(x));
    const double before = std::abs(static_cast<double>(from_e4m3(best)) - std::abs(x));
    if (now < before || (now == before && bits % 2 == 0)) best = bits;
  }
  return std::copysign(from_e4m3(best), x);
}

class QuantiseTest : public OnEveryTable {
 protected:
  static std::vector<float> run(std::vector<float> x, bool power_of_two,
                                const std::vector<float>& factor = {}) {
    const int rows = factor.empty() ? 1 : static_cast<int>(factor.size());
    const int width = static_cast<int>(x.size()) / rows;
    GetParam()->quantise({.x = x.data(),
                          .ldx = width,
                          .factor = factor.empty() ? nullptr : factor.data(),
                          .y = x.data(),
                          .ldy = width,
                          .rows = rows,
                          .width = width,
                          .power_of_two = power_of_two},
                         0, rows);
    return x;
  }
};

TEST_P(QuantiseTest, EveryValueGoesToTheNearestAndTiesToEven) {
  // With 448 among them the scale is one.
  for (int bits = 0; bits < 0x7e; ++bits) {
    const float low = from_e4m3(static_cast<std::uint8_t>(bits));
    const float high = from_e4m3(static_cast<std::uint8_t>(bits + 1));
    const float middle = (low + high) / 2;
    const std::vector<float> x{
        low,   middle, std::nextafter(middle, 0.0F), std::nextafter(middle, 448.0F), -middle,
        -high, 448};
    const auto y = run(x, false);
    for (std::size_t i = 0; i < x.size(); ++i) ASSERT_EQ(y[i], nearest(x[i])) << x[i];
    EXPECT_EQ(run(x, true), y);
  }
}

TEST_P(QuantiseTest, EachBlockHasItsScaleAndTheLastMayBeShort) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  std::vector<float> x(2 * 300);  // two rows of two blocks and 44 values
  for (std::size_t i = 0; i < x.size(); ++i) {
    x[i] = normal(random) * std::ldexp(1.0F, static_cast<int>(i / 50));
  }
  const std::vector<float> factor{1.0F, 0.3F};
  for (const bool power_of_two : {false, true}) {
    const auto y = run(x, power_of_two, factor);
    for (std::size_t row = 0; row < 2; ++row) {
      for (std::size_t begin = 0; begin < 300; begin += kScaleBlock) {
        const std::size_t end = std::min<std::size_t>(300, begin + kScaleBlock);
        float largest = 0;
        for (std::size_t i = begin; i < end; ++i) {
          largest = std::max(largest, std::abs(x[row * 300 + i]));
        }
        const float scale =
            power_of_two ? std::exp2(std::ceil(std::log2(largest / 448.0F))) : largest / 448.0F;
        for (std::size_t i = row * 300 + begin; i < row * 300 + end; ++i) {
          ASSERT_EQ(y[i], nearest(x[i] / scale) * scale * factor[row]) << i;
        }
      }
    }
  }
}

TEST_P(QuantiseTest, ABlockOfZerosStaysZeroAndSmallValuesDoNotGrowScales) {
  EXPECT_EQ(run(std::vector<float>(130), false), std::vector<float>(130));
  EXPECT_EQ(run(std::vector<float>(130), true), std::vector<float>(130));
  // Below 1e-4 the scale stays that of 1e-4: 1e-10 is under half of the smallest step.
  EXPECT_EQ(run({1e-10F, -1e-10F}, false), (std::vector<float>{0.0F, 0.0F}));
  const float scale = 1e-4F / 448.0F;
  EXPECT_EQ(run({5e-5F}, false)[0], nearest(5e-5F / scale) * scale);
}

TEST_P(QuantiseTest, TheLargestIsAtMost448TimesTheScale) {
  std::mt19937 random(4);
  std::uniform_real_distribution<float> any(0.5F, 2.0F);
  for (int i = 0; i < 2000; ++i) {
    const float x = any(random) * std::ldexp(1.0F, i % 40 - 12);
    const float y = run({x}, false)[0];
    ASSERT_EQ(y, 448.0F * (x / 448.0F)) << x;
    ASSERT_EQ(run({-x}, false)[0], -y);
    // A power of two leaves room: the value is rounded, not cut.
    const float scale = std::exp2(std::ceil(std::log2(x / 448.0F)));
    ASSERT_EQ(run({x}, true)[0], nearest(x / scale) * scale) << x;
  }
}

INSTANTIATE_TEST_SUITE_P(Tables, QuantiseTest, all_tables(), table_name);

}  // namespace
}  // namespace dsm::kernels
