// What is asked of the engine for one sequence, and how a sequence can end. Plain values.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "worker/engine/adapter.h"
#include "worker/engine/logprobs.h"
#include "worker/engine/sampling_params.h"
#include "worker/engine/token_constraint.h"

namespace dsm::engine {

enum class FinishReason {
  kStop,       // a stop token was chosen
  kLength,     // max_tokens reached, or the context is full
  kCancelled,  // cancel(), or the engine was shut down
  kDeadline,   // its time was over
  kError,      // the step failed in a way that trying again would not mend
};

struct GenerateRequest {
  std::vector<TokenId> prompt;   // at least one token
  std::int32_t max_tokens = 16;  // new tokens at most; the stop token is not counted
  // End-of-sequence ids. The one that ends a sequence is not handed out.
  std::vector<TokenId> stop_tokens;
  bool ignore_eos = false;      // go on to max_tokens; stop tokens are then handed out as any other
  std::int32_t min_tokens = 0;  // stop tokens are masked until so many were generated
  SamplingParams sampling;
  std::string cache_salt;  // prefix-cache hits only within the same salt
  // Null: the model as it is. Held until the sequence has ended; prefix-cache hits only within the
  // same one.
  std::shared_ptr<const Adapter> adapter;
  // Lower goes first in the queue; equal ones in the order of arrival.
  int priority = 0;
  std::optional<TimePoint> deadline;  // ends with kDeadline when it is still in work then
  // As SamplingParams::logprobs, of each prompt token but the first; such a request does not read
  // the prefix cache.
  int prompt_logprobs = -1;
  std::shared_ptr<TokenConstraint> constraint;  // null: any token may come
};

}  // namespace dsm::engine
