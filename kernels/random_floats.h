// Normally distributed numbers for tests, the same on every machine.
#pragma once

#include <cstddef>
#include <vector>

namespace dsm::kernels {

std::vector<float> random_floats(std::size_t count, unsigned seed, float scale = 1.0F);

}  // namespace dsm::kernels
