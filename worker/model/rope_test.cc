// What the scalings of rotary angles do to single frequencies; that whole models turn as their
// reference does is tests/model's business.
#include "worker/model/rope.h"

#include <gtest/gtest.h>

#include <cmath>

namespace dsm::model {
namespace {

constexpr int kPairs = 8;

ModelConfig config_with(RopeConfig rope) {
  ModelConfig c;
  c.qk_rope_head_dim = 2 * kPairs;
  c.max_positions = 64;
  c.rope = rope;
  c.rope.theta = 10000;
  return c;
}

// Of pair i at a position, before it is wrapped: asked for only where it is below pi.
double angle(const RopeAngles& angles, int position, int i) {
  const auto at = static_cast<std::size_t>(position * kPairs + i);
  return std::atan2(angles.sin[at], angles.cos[at]);
}

TEST(Rope, PairsTurnByPowersOfTheta) {
  const auto angles = rope_angles(config_with({}));
  for (int i = 0; i < kPairs; ++i) {
    EXPECT_NEAR(angle(angles, 1, i), std::pow(10000.0, -i / 8.0), 1e-6);
    EXPECT_EQ(angle(angles, 0, i), 0.0);
  }
}

TEST(Rope, ALinearFactorDividesPositions) {
  const auto plain = rope_angles(config_with({}));
  RopeConfig linear;
  linear.linear_factor = 4;
  const auto slow = rope_angles(config_with(linear));
  for (int i = 0; i < kPairs; ++i) EXPECT_NEAR(angle(slow, 8, i), angle(plain, 2, i), 1e-6);
}

TEST(Rope, Llama3KeepsFastPairsStretchesSlowOnesAndBlendsBetween) {
  const auto plain = rope_angles(config_with({}));
  // Turns within 256 positions: 40.7, 12.9, 4.07, 1.29, 0.407, ...
  RopeConfig llama3;
  llama3.llama3 = Llama3RopeConfig{
      .factor = 8, .low_freq_factor = 1, .high_freq_factor = 4, .original_max_position = 256};
  const auto scaled = rope_angles(config_with(llama3));
  for (const int i : {0, 1, 2}) EXPECT_NEAR(angle(scaled, 1, i), angle(plain, 1, i), 1e-6);
  const double turns = 256 * std::pow(10000.0, -3 / 8.0) / (2 * M_PI);
  const double kept = (turns - 1) / 3;
  EXPECT_NEAR(angle(scaled, 1, 3) / angle(plain, 1, 3), kept + (1 - kept) / 8, 1e-5);
  for (const int i : {4, 5, 6, 7}) {
    EXPECT_NEAR(angle(scaled, 1, i) / angle(plain, 1, i), 1.0 / 8, 1e-5);
  }
}

TEST(Rope, YarnRaisesTheScaleOfScoresByTheSquareOfItsTemperature) {
  auto c = config_with({});
  EXPECT_FLOAT_EQ(attention_scale(c), 0.25F);
  c.rope.yarn = YarnConfig{.factor = 40,
                           .beta_fast = 32,
                           .beta_slow = 1,
                           .mscale = 0.707,
                           .mscale_all_dim = 0.707,
                           .original_max_position = 4096};
  const double temperature = 0.1 * 0.707 * std::log(40.0) + 1;
  EXPECT_FLOAT_EQ(attention_scale(c), static_cast<float>(0.25 * temperature * temperature));
}

}  // namespace
}  // namespace dsm::model
