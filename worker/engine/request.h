// What is asked of the engine for one sequence, and how a sequence can end. Plain values.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "worker/engine/batch.h"
#include "worker/engine/sampling_params.h"

namespace dsm::engine {

enum class FinishReason {
  kStop,       // a stop token was chosen
  kLength,     // max_tokens reached, or the context is full
  kCancelled,  // cancel(), or the engine was shut down
  kError,      // the step failed in a way that trying again would not mend
};

struct GenerateRequest {
  std::vector<TokenId> prompt;   // at least one token
  std::int32_t max_tokens = 16;  // new tokens at most; the stop token is not counted
  // End-of-sequence ids. The one that ends a sequence is not handed out.
  std::vector<TokenId> stop_tokens;
  bool ignore_eos = false;  // go on to max_tokens; stop tokens are then handed out as any other
  SamplingParams sampling;
  std::string cache_salt;  // prefix-cache hits only within the same salt
};

}  // namespace dsm::engine
