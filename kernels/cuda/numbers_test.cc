// The numbers that the GPU's kernels compute with, on the CPU: exact where they are said to be, and
// as the CPU's operators make them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cpu/pack.h"
#include "kernels/cuda/fragments.h"
#include "kernels/cuda/integer_fragments.h"
#include "kernels/ops.h"
#include "kernels/random_floats.h"

namespace dsm::kernels::cuda {
namespace {

TEST(CudaNumbersTest, EveryIntegerIsExactInBf16) {
  for (int i = -128; i < 128; ++i) {
    const auto byte = static_cast<std::uint32_t>(i) & 0xffU;
    const std::uint32_t pair = bf16_pair_of_int8(byte | (byte ^ 0xffU) << 16 | 0xab00cd00U);
    EXPECT_EQ(first_of(pair), static_cast<float>(i));
    EXPECT_EQ(second_of(pair), static_cast<float>(-1 - i));
  }
  for (unsigned i = 0; i < 16; ++i) {
    const std::uint32_t pair = bf16_pair_of_int4(i | (15 - i) << 16 | 0xabc0def0U);
    EXPECT_EQ(first_of(pair), static_cast<float>(i) - 8);
    EXPECT_EQ(second_of(pair), 7 - static_cast<float>(i));
  }
}

TEST(CudaNumbersTest, EveryFp8ValueHasItsBits) {
  for (unsigned bits = 0; bits < 256; ++bits) {
    if ((bits & 0x7fU) == 0x7fU) continue;
    EXPECT_EQ(bits_of_e4m3(from_e4m3(static_cast<std::uint8_t>(bits))), bits);
  }
}

TEST(CudaNumbersTest, BytesAreTakenByTheirPlaces) {
  EXPECT_EQ(bytes_of(0x33221100U, 0x77665544U, 0x3210), 0x33221100U);
  EXPECT_EQ(bytes_of(0x33221100U, 0x77665544U, 0x7052), 0x77005522U);
}

TEST(CudaNumbersTest, EveryFp8ValueIsExactInBf16) {
  for (unsigned bits = 0; bits < 256; ++bits) {
    if ((bits & 0x7fU) == 0x7fU) continue;
    const std::uint32_t pair = bf16_pair_of_e4m3(bits, bits ^ 0x80U);
    EXPECT_EQ(as_bits(first_of(pair)), as_bits(from_e4m3(static_cast<std::uint8_t>(bits))));
    EXPECT_EQ(as_bits(second_of(pair)),
              as_bits(from_e4m3(static_cast<std::uint8_t>(bits ^ 0x80U))));
  }
}

TEST(CudaNumbersTest, TwoTermsKeepSixteenBitsOfAFraction) {
  for (const float x : random_floats(1000, 3)) {
    const Activations values = {{{x, 0, 0, 0}, {0, 0, 0, x}}};
    const FragmentA high = rounded(values);
    const FragmentA low = remainder(values, high);
    EXPECT_NEAR(first_of(high.v[0]) + first_of(low.v[0]), x, std::abs(x) * 0x1p-17F);
    EXPECT_NEAR(second_of(high.v[3]) + second_of(low.v[3]), x, std::abs(x) * 0x1p-17F);
  }
}

// By the CPU's router, which gives sigmoids away.
TEST(CudaNumbersTest, SigmoidIsTheCpusToTheBit) {
  auto logits = random_floats(1000, 4);
  for (float& logit : logits) logit *= 30;
  logits[0] = 0;
  logits[1] = -200;
  logits[2] = 200;
  const std::vector<float> bias(1, 0.0F);
  std::vector<std::int32_t> chosen(logits.size());
  std::vector<float> weights(logits.size());
  available_ops()[0]->router({.logits = logits.data(),
                              .ld = 1,
                              .bias = bias.data(),
                              .tokens = static_cast<int>(logits.size()),
                              .experts = 1,
                              .groups = 1,
                              .topk_groups = 1,
                              .top_k = 1,
                              .scale = 1,
                              .chosen = chosen.data(),
                              .weights = weights.data()},
                             0, static_cast<int>(logits.size()));
  for (std::size_t i = 0; i < logits.size(); ++i) {
    EXPECT_EQ(as_bits(sigmoid_of(logits[i])), as_bits(weights[i])) << logits[i];
  }
}

TEST(CudaNumbersTest, RoundingToFp8IsTheCpusToTheBit) {
  for (const bool power_of_two : {false, true}) {
    auto x = random_floats(kScaleBlock, 8);
    x[3] = 1e-6F;
    std::vector<float> wanted(x.size());
    available_ops()[0]->quantise({.x = x.data(),
                                  .ldx = kScaleBlock,
                                  .y = wanted.data(),
                                  .ldy = kScaleBlock,
                                  .rows = 1,
                                  .width = kScaleBlock,
                                  .power_of_two = power_of_two},
                                 0, 1);
    float largest = 0;
    for (const float value : x) largest = std::max(largest, std::abs(value));
    const float scale = activation_scale_of(largest, power_of_two);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const float value = std::clamp(x[i] / scale, -448.0F, 448.0F);
      EXPECT_EQ(as_bits(nearest_e4m3_of(value) * scale), as_bits(wanted[i]));
    }
  }
}

}  // namespace
}  // namespace dsm::kernels::cuda
