// How one sequence's next token is chosen. Plain values, checked by validate() at the API's door.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "worker/engine/ids.h"

namespace dsm::engine {

// Added to a token's logit.
struct LogitBias {
  TokenId token = 0;
  float bias = 0;  // [-100, 100]
  bool operator==(const LogitBias&) const = default;
};

inline constexpr int kMaxLogprobs = 20;

struct SamplingParams {
  float temperature = 0.0F;  // 0 = greedy (arg max, lowest id on a tie)
  int top_k = 0;             // 0 = off
  float top_p = 1.0F;        // (0, 1]
  float min_p = 0.0F;        // [0, 1]
  // Penalties look at the tokens of the sequence before the position that is chosen: presence and
  // frequency at generated ones (OpenAI's definition), repetition at the prompt's too (divides a
  // positive logit, multiplies a negative one).
  float presence_penalty = 0;    // [-2, 2]
  float frequency_penalty = 0;   // [-2, 2]
  float repetition_penalty = 1;  // (0, 2]
  std::vector<LogitBias> logit_bias = {};
  // Natural logarithms of the model's own probabilities (before temperature, penalties, bias and
  // masks): -1 = none; 0 = of the chosen token; n = also the n likeliest. At most kMaxLogprobs.
  int logprobs = -1;
  // Random numbers are a function of (seed, position, token id) alone, so the same seed gives the
  // same tokens whatever else is in the batch.
  std::uint64_t seed = 0;

  bool operator==(const SamplingParams&) const = default;
};

// kInvalid with the field's OpenAI name in the message when a value is out of bounds.
Status validate(const SamplingParams& params);

}  // namespace dsm::engine
