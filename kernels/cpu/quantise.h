// Activations rounded to FP8. kernels.h says why nothing here may be shared between instruction
// sets.
#pragma once

#include "kernels/params.h"

namespace dsm::kernels {
namespace {

// The FP8 value nearest to x, on a tie the even one; |x| is at most 448.
inline float nearest_e4m3(float x) {
  if (__builtin_fabsf(x) < 0x1p-6F) {
    const float magic = 0x1.8p14F;  // its last place is 2^-9, as that of the small FP8 values
    return (x + magic) - magic;
  }
  auto bits = __builtin_bit_cast(std::uint32_t, x);
  bits += 0x7ffffU + (bits >> 20 & 1U);  // of 23 bits of fraction 3 stay
  return __builtin_bit_cast(float, bits & 0xfff00000U);
}

// The scale of a block by its largest magnitude.
inline float activation_scale(float largest, bool power_of_two) {
  const float scale = (largest > 1e-4F ? largest : 1e-4F) / 448.0F;
  if (!power_of_two) return scale;
  const auto bits = __builtin_bit_cast(std::uint32_t, scale);
  return __builtin_bit_cast(float, (bits + 0x7fffffU) & 0x7f800000U);
}

inline void quantise_block(const float* x, float* y, int width, bool power_of_two, float factor) {
  float largest = 0.0F;
  for (int i = 0; i < width; ++i) {
    const float magnitude = __builtin_fabsf(x[i]);
    largest = magnitude > largest ? magnitude : largest;
  }
  const float scale = activation_scale(largest, power_of_two);
  for (int i = 0; i < width; ++i) {
    float value = x[i] / scale;
    value = value > 448.0F ? 448.0F : value;  // rounding may have gone beyond
    value = value < -448.0F ? -448.0F : value;
    y[i] = nearest_e4m3(value) * scale * factor;
  }
}

inline void quantise(const QuantiseParams& p, int begin, int end) {
  for (std::int64_t r = begin; r < end; ++r) {
    for (int at = 0; at < p.width; at += kScaleBlock) {
      const int width = p.width - at < kScaleBlock ? p.width - at : kScaleBlock;
      quantise_block(p.x + r * p.ldx + at, p.y + r * p.ldy + at, width, p.power_of_two,
                     p.factor != nullptr ? p.factor[r] : 1.0F);
    }
  }
}

}  // namespace
}  // namespace dsm::kernels
