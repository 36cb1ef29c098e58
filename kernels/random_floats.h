// Normally distributed numbers for tests, the same on every machine.
#pragma once

#include <cstddef>
#include <random>
#include <vector>

namespace dsm::kernels {

inline std::vector<float> random_floats(std::size_t count, unsigned seed, float scale = 1.0F) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0F, scale);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

}  // namespace dsm::kernels
