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
double pair_of(double turns, int dim, double theta, const YarnConfig& yarn) {
  return dim * std::log(yarn.original_max_position / (turns * 2 * std::numbers::pi)) /
         (2 * std::log(theta));
}

void scale_by_yarn(std::vector<double>& frequency, int dim, double theta, const YarnConfig& yarn) {
  const double low = std::max(std::floor(pair_of(yarn.beta_fast, dim, theta, yarn)), 0.0);
  double high = std::min(std::ceil(pair_of(yarn.beta_slow, dim, theta, yarn)), dim - 1.0);
  if (low == high) high += 0.001;
  for (std::size_t i = 0; i < frequency.size(); ++i) {
    const double stretched = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    frequency[i] = frequency[i] / yarn.factor * stretched + frequency[i] * (1 - stretched);
  }
}

void scale_as_llama3(std::vector<double>& frequency, const Llama3RopeConfig& rope) {
  for (double& f : frequency) {
    // Turns within the original context.
    const double turns = rope.original_max_position * f / (2 * std::numbers::pi);
    const double kept = std::clamp(
        (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor), 0.0, 1.0);
    f = f / rope.factor * (1 - kept) + f * kept;
  }
}

// Angle per position for each pair.
std::vector<float> frequencies(int dim, const RopeConfig& rope) {
  std::vector<double> frequency;
  frequency.reserve(static_cast<std::size_t>(dim) / 2);
  for (int i = 0; i < dim / 2; ++i) {
    frequency.push_back(std::pow(rope.theta, -2.0 * i / dim) / rope.linear_factor);
  }
  if (rope.yarn) scale_by_yarn(frequency, dim, rope.theta, *rope.yarn);
  if (rope.llama3) scale_as_llama3(frequency, *rope.llama3);
  return {frequency.begin(), frequency.end()};
}

}  // namespace

RopeAngles rope_angles(const ModelConfig& c) {
  const auto frequency = frequencies(c.qk_rope_head_dim, c.rope);
  const auto& yarn = c.rope.yarn;
  const double scale = yarn ? temperature(yarn->factor, yarn->mscale) /
                                  temperature(yarn->factor, yarn->mscale_all_dim) *
                                  yarn->attention_factor
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
  const auto& yarn = c.rope.yarn;
  const double m = yarn ? temperature(yarn->factor, yarn->mscale_all_dim) : 1.0;
  return static_cast<float>(m * m / std::sqrt(static_cast<double>(c.qk_head_dim())));
}

}  // namespace dsm::model
