#include "kernels/random_floats.h"

#include <cstdint>
#include <random>
#include <type_traits>

namespace dsm::kernels {
namespace {

// std::mt19937 by another name: a program has one copy of a template's functions, and that of a
// test is neither optimised nor without sanitizers.
using OwnEngine =
    std::mersenne_twister_engine<std::uint32_t, 32, 624, 397, 31, 0x9908b0df, 11, 0xffffffff, 7,
                                 0x9d2c5680, 15, 0xefc60000, 18, 1812433253>;
static_assert(!std::is_same_v<OwnEngine, std::mt19937>);

}  // namespace

std::vector<float> random_floats(std::size_t count, unsigned seed, float scale) {
  OwnEngine random(seed);
  std::normal_distribution<float> normal(0.0F, scale);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

}  // namespace dsm::kernels
