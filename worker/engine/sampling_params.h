// How one sequence's next token is chosen. Plain values, checked by validate() at the API's door.
#pragma once

#include <cstdint>

#include "base/result.h"

namespace dsm::engine {

struct SamplingParams {
  float temperature = 0.0F;  // 0 = greedy (arg max, lowest id on a tie)
  int top_k = 0;             // 0 = off
  float top_p = 1.0F;        // (0, 1]
  float min_p = 0.0F;        // [0, 1]
  // Random numbers are a function of (seed, position, token id) alone, so the same seed gives the
  // same tokens whatever else is in the batch.
  std::uint64_t seed = 0;

  bool operator==(const SamplingParams&) const = default;
};

// kInvalid with the field's OpenAI name in the message when a value is out of bounds.
Status validate(const SamplingParams& params);

}  // namespace dsm::engine
