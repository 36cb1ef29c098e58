#include "worker/engine/sampling_params.h"

#include <string>

namespace dsm::engine {

// Each test is written so that a NaN fails it.
Status validate(const SamplingParams& params) {
  if (!(params.temperature >= 0.0F && params.temperature <= 2.0F)) {
    return fail(ErrorKind::kInvalid, "temperature must be between 0 and 2");
  }
  if (params.top_k < 0) {
    return fail(ErrorKind::kInvalid, "top_k must be 0 (off) or more");
  }
  if (!(params.top_p > 0.0F && params.top_p <= 1.0F)) {
    return fail(ErrorKind::kInvalid, "top_p must be above 0 and at most 1");
  }
  if (!(params.min_p >= 0.0F && params.min_p <= 1.0F)) {
    return fail(ErrorKind::kInvalid, "min_p must be between 0 and 1");
  }
  if (!(params.presence_penalty >= -2.0F && params.presence_penalty <= 2.0F)) {
    return fail(ErrorKind::kInvalid, "presence_penalty must be between -2 and 2");
  }
  if (!(params.frequency_penalty >= -2.0F && params.frequency_penalty <= 2.0F)) {
    return fail(ErrorKind::kInvalid, "frequency_penalty must be between -2 and 2");
  }
  if (!(params.repetition_penalty > 0.0F && params.repetition_penalty <= 2.0F)) {
    return fail(ErrorKind::kInvalid, "repetition_penalty must be above 0 and at most 2");
  }
  for (const LogitBias& b : params.logit_bias) {
    if (b.token < 0) {
      return fail(ErrorKind::kInvalid,
                  "logit_bias names token " + std::to_string(b.token) + ", which cannot be");
    }
    if (!(b.bias >= -100.0F && b.bias <= 100.0F)) {
      return fail(ErrorKind::kInvalid, "logit_bias of token " + std::to_string(b.token) +
                                           " must be between -100 and 100");
    }
  }
  if (params.logprobs < -1 || params.logprobs > kMaxLogprobs) {
    return fail(ErrorKind::kInvalid,
                "logprobs must be between 0 and " + std::to_string(kMaxLogprobs));
  }
  return {};
}

}  // namespace dsm::engine
