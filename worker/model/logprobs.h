// Log probabilities of a model's own distribution, as the API hands them out.
#pragma once

#include <span>
#include <vector>

#include "worker/engine/logprobs.h"

namespace dsm::model {

// Keeps its scratch memory between calls; one thread uses it.
class LogprobReader {
 public:
  // Of `chosen` and the `top` likeliest tokens, from the logits of one position. A logit that is
  // not a number has no share.
  engine::PositionLogprobs read(std::span<const float> logits, engine::TokenId chosen, int top);

 private:
  std::vector<engine::TokenLogprob> candidates_;  // with logits in place of logprobs
};

}  // namespace dsm::model
