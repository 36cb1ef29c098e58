#include "worker/model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace dsm::model {
namespace {

double temperature(double factor, double mscale) {
  return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

// The pair index (a fraction) that turns `turns` times within the original context.
double pair_of(double turns, const ModelConfig& c) {
  return c.qk_rope_head_dim *
         std::log(c.yarn->original_max_position / (turns * 2 * std::numbers::pi)) /
         (2 * std::log(c.rope_theta));
}

// Angle per position for each pair.
std::vector<float> frequencies(const ModelConfig& c) {
  const int dim = c.qk_rope_head_dim;
  std::vector<float> result;
  double low = 0;
  double high = 0;
  if (c.yarn) {
    low = std::max(std::floor(pair_of(c.yarn->beta_fast, c)), 0.0);
    high = std::min(std::ceil(pair_of(c.yarn->beta_slow, c)), dim - 1.0);
    if (low == high) high += 0.001;
  }
  for (int i = 0; i < dim / 2; ++i) {
    double frequency = std::pow(c.rope_theta, -2.0 * i / dim);
    if (c.yarn) {
      const double stretched = std::clamp((i - low) / (high - low), 0.0, 1.0);
      frequency = frequency / c.yarn->factor * stretched + frequency * (1 - stretched);
    }
    result.push_back(static_cast<float>(frequency));
  }
  return result;
}

}  // namespace

RopeAngles rope_angles(const ModelConfig& c) {
  const auto frequency = frequencies(c);
  const double scale = c.yarn ? temperature(c.yarn->factor, c.yarn->mscale) /
                                    temperature(c.yarn->factor, c.yarn->mscale_all_dim)
                              : 1.0;
  RopeAngles angles;
  angles.cos.reserve(static_cast<std::size_t>(c.max_positions) * frequency.size());
  angles.sin.reserve(angles.cos.capacity());
  for (int position = 0; position < c.max_positions; ++position) {
    for (const float f : frequency) {
      // The product is rounded to FP32 as in the reference implementation.
      const float angle = static_cast<float>(position) * f;
      angles.cos.push_back(static_cast<float>(std::cos(static_cast<double>(angle)) * scale));
      angles.sin.push_back(static_cast<float>(std::sin(static_cast<double>(angle)) * scale));
    }
  }
  return angles;
}

float attention_scale(const ModelConfig& c) {
  const double m = c.yarn ? temperature(c.yarn->factor, c.yarn->mscale_all_dim) : 1.0;
  return static_cast<float>(m * m / std::sqrt(static_cast<double>(c.qk_head_dim())));
}

}  // namespace dsm::model
