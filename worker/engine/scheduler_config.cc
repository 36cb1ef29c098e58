#include "worker/engine/scheduler_config.h"

#include <algorithm>
#include <string>

#include "worker/engine/batch.h"

namespace dsm::engine {
namespace {

std::unexpected<Error> invalid(std::string message) {
  return fail(ErrorKind::kInvalid, std::move(message));
}

Status check_speculation(const SpeculationConfig& s) {
  if (s.method == SpeculationConfig::Method::kNone) {
    if (s.tokens == 0) return {};
    return invalid("speculative-tokens is " + std::to_string(s.tokens) +
                   " without a speculative-method");
  }
  if (s.tokens < 1 || s.tokens > kMaxSpeculativeTokens) {
    return invalid("speculative-tokens must be between 1 and " +
                   std::to_string(kMaxSpeculativeTokens) + " with a speculative-method, it is " +
                   std::to_string(s.tokens));
  }
  return {};
}

Status check_tokens(const SchedulerConfig& config, const GenerateRequest& request) {
  if (config.vocab_size == 0) {
    if (request.constraint) return invalid("constraints need a known vocabulary");
    return {};
  }
  for (const LogitBias& b : request.sampling.logit_bias) {
    if (b.token >= config.vocab_size) {
      return invalid("logit_bias names token " + std::to_string(b.token) + ", the model has " +
                     std::to_string(config.vocab_size));
    }
  }
  return {};
}

}  // namespace

int SchedulerConfig::context_limit() const {
  // The last token of a sequence is handed out and never computed, so it needs no slot.
  const std::int64_t slots = static_cast<std::int64_t>(num_blocks) * kBlockTokens + 1;
  return static_cast<int>(std::min<std::int64_t>(max_model_len, slots));
}

Status validate(const SchedulerConfig& config) {
  const auto positive = [](int value, const char* name) -> Status {
    if (value < 1) {
      return invalid(std::string(name) + " must be at least 1, it is " + std::to_string(value));
    }
    return {};
  };
  for (const Status& status :
       {positive(config.max_num_seqs, "max-num-seqs"),
        positive(config.max_batch_tokens, "max-num-batched-tokens"),
        positive(config.num_blocks, "KV blocks"), positive(config.kv_caches, "KV caches"),
        positive(config.max_waiting, "max-waiting")}) {
    if (!status) return status;
  }
  if (config.max_waiting_tokens < 0) {
    return invalid("max-waiting-tokens must be 0 (no limit) or more, it is " +
                   std::to_string(config.max_waiting_tokens));
  }
  if (config.max_model_len < 2) {
    return invalid("max-model-len must be at least 2, it is " +
                   std::to_string(config.max_model_len));
  }
  if (config.max_num_seqs > config.max_batch_tokens) {
    return invalid("max-num-seqs (" + std::to_string(config.max_num_seqs) +
                   ") must not be larger than max-num-batched-tokens (" +
                   std::to_string(config.max_batch_tokens) +
                   "): every running sequence needs a token in each step");
  }
  return check_speculation(config.speculation);
}

Status admissible(const SchedulerConfig& config, const GenerateRequest& request) {
  if (request.prompt.empty()) return invalid("the prompt has no tokens");
  if (request.max_tokens < 1) {
    return invalid("max_tokens must be at least 1, it is " + std::to_string(request.max_tokens));
  }
  if (request.prompt.size() >= static_cast<std::size_t>(config.context_limit())) {
    return invalid("the prompt has " + std::to_string(request.prompt.size()) +
                   " tokens; the context holds " + std::to_string(config.context_limit()) +
                   ", at least one of them for the answer");
  }
  if (request.min_tokens < 0 || request.min_tokens > request.max_tokens) {
    return invalid("min_tokens must be between 0 and max_tokens (" +
                   std::to_string(request.max_tokens) + "), it is " +
                   std::to_string(request.min_tokens));
  }
  if (request.prompt_logprobs < -1 || request.prompt_logprobs > kMaxLogprobs) {
    return invalid("prompt_logprobs must be between 0 and " + std::to_string(kMaxLogprobs));
  }
  if (const Status tokens = check_tokens(config, request); !tokens) return tokens;
  return validate(request.sampling);
}

}  // namespace dsm::engine
