// Penalties of tokens that a text has already, and added bias: how logits are shifted before a
// token is chosen. In this order, in FP32:
//   repetition, of tokens anywhere in the text: a positive logit is divided, another multiplied;
//   frequency, of generated tokens: subtracted once for each time; presence: subtracted once;
//   bias: added.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "worker/engine/ids.h"
#include "worker/engine/sampling_params.h"

namespace dsm::model {

// Whether the text before a position has a say in what is chosen there.
bool has_penalties(const engine::SamplingParams& params);

// Counts one text's tokens. Keeps its memory for the next text; one thread uses it.
class Penalties {
 public:
  // Forgets the last text. Tokens are below `vocab`; others are passed over.
  void start(std::size_t vocab);
  void add(engine::TokenId token, bool generated);
  // Shifts logits [vocab] of the position after the text so far.
  void apply(const engine::SamplingParams& params, std::span<float> logits) const;

 private:
  std::vector<std::int32_t> generated_;  // by token: times generated; -1 where it was not seen
  std::vector<engine::TokenId> seen_;
};

}  // namespace dsm::model
