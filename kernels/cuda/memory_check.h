// Patterns in a GPU's memory, written and read back by all of its processors. For device and host.
#pragma once

#include <cstdint>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/numbers.h"

namespace dsm::kernels::cuda {

// One bit of a word moves from word to word, or each word says where it stands (an address that is
// decoded wrongly shows), and the inverse of both, so that every bit has been 0 and 1.
enum class Pattern : std::int32_t { kWalkingOne, kWalkingZero, kPlace, kInversePlace };
inline constexpr Pattern kPatterns[] = {Pattern::kWalkingOne, Pattern::kWalkingZero,
                                        Pattern::kPlace, Pattern::kInversePlace};

DSM_HOST_DEVICE std::uint32_t pattern_word(Pattern pattern, std::uint64_t at) {
  const std::uint32_t one = std::uint32_t{1} << (at % 32);
  // Odd, so that the places of 16 GiB have words of their own; more of them differ in upper bits.
  const std::uint32_t place =
      static_cast<std::uint32_t>(at) * 0x9e3779b1U ^ static_cast<std::uint32_t>(at >> 32);
  switch (pattern) {
    case Pattern::kWalkingOne:
      return one;
    case Pattern::kWalkingZero:
      return ~one;
    case Pattern::kPlace:
      return place;
    case Pattern::kInversePlace:
      return ~place;
  }
  return 0;
}

void write_pattern(Pattern pattern, std::uint32_t* words, std::int64_t count, Stream stream);

// Words that are not the pattern's. All zero before they are counted.
struct Mismatches {
  unsigned long long count = 0;
  unsigned long long place_plus_one = 0;  // of one of them; 0: there is none
  std::uint32_t found = 0;                // what stands there
};
void count_mismatches(Pattern pattern, const std::uint32_t* words, std::int64_t count,
                      Mismatches* into, Stream stream);

}  // namespace dsm::kernels::cuda
