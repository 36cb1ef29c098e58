#include "kernels/cpu/integers.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace dsm::kernels {
namespace {

constexpr float lowest_of(DType dtype) {
  return dtype == DType::kInt4 ? -8.0F : -128.0F;
}

}  // namespace

float integer_scale(std::span<const float> values, DType dtype) {
  float extreme = 0;
  for (const float value : values) {
    if (!std::isfinite(value)) return std::numeric_limits<float>::quiet_NaN();
    if (std::abs(value) > std::abs(extreme)) extreme = value;
  }
  return extreme / lowest_of(dtype);
}

int nearest_integer(float value, float scale, DType dtype) {
  if (scale == 0.0F) return 0;  // all of the block are zero, or too small for a scale
  const float lowest = lowest_of(dtype);
  const float bounded = std::clamp(value / scale, lowest, -lowest - 1);
  const float magic = 0x1.8p23F;  // its last place is 1
  return static_cast<int>((bounded + magic) - magic);
}

}  // namespace dsm::kernels
