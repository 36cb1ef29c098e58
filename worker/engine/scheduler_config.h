// The limits under which the scheduler works, and what they say about a request. Plain values.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "base/result.h"
#include "worker/engine/request.h"

namespace dsm::engine {

// Guesses at the next tokens, verified in the same step as the token before them. They never change
// what a sequence receives, only how many steps it takes.
struct SpeculationConfig {
  enum class Method {
    kNone,
    kNgram,  // what followed when the sequence's own text ended as it does now
    kMtp,    // what the model's own extra layer proposes
  };
  Method method = Method::kNone;
  int tokens = 0;  // drafts after one token at most; 0 without a method

  bool operator==(const SpeculationConfig&) const = default;
};
inline constexpr int kMaxSpeculativeTokens = 16;

// In the queue, one step of priority is worth so much waiting: a request of priority p stands where
// one of priority 0 would stand that came p times this long after it. So requests of a better
// priority go first, and none waits for ever.
inline constexpr std::chrono::seconds kPriorityWorth{10};
inline constexpr int kMaxPriority = 1000;  // of either sign; beyond it counts as it

struct SchedulerConfig {
  int max_num_seqs = 16;       // sequences in one step
  int max_batch_tokens = 512;  // tokens in one step, drafts included
  int max_model_len = 2048;    // prompt and generated tokens of one sequence
  int num_blocks = 512;        // KV blocks of kBlockTokens, of each cache
  int kv_caches = 1;           // one for all ranks, or one for each rank
  bool prefix_caching = true;
  std::string kv_cache_dtype = "fp32";  // blocks of one type are no hits for another
  int max_waiting = 1024;               // accepted and not running; more are refused
  int max_waiting_tokens = 0;           // of all that wait; 0 = no limit
  int vocab_size = 0;  // of the model; 0 = not known: requests with a constraint are refused
  SpeculationConfig speculation = {};

  // Tokens that one sequence can have: the model's limit or what a whole cache holds.
  int context_limit() const;
};

// kInvalid when a configuration cannot work, with the numbers.
Status validate(const SchedulerConfig& config);
// kInvalid when the request could never run under this configuration, with the numbers.
Status admissible(const SchedulerConfig& config, const GenerateRequest& request);

}  // namespace dsm::engine
