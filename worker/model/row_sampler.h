// Chooses the tokens of one row of a batch from its logits, on rank 0: penalties, bias and masks of
// each position, drafts verified, log probabilities.
//
// Each position's token is a function of its logits, the text before it and the request alone, so a
// sequence receives the same tokens with drafts and without. Keeps scratch memory between rows; one
// thread uses it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "worker/engine/batch.h"
#include "worker/model/logprobs.h"
#include "worker/model/penalties.h"

namespace dsm::model {

class RowSampler {
 public:
  // `vocab`: logits of a position. Tokens from `sampled_vocab` on are padding: they are not chosen
  // and have no share in probabilities.
  RowSampler(std::size_t vocab, std::size_t sampled_vocab);

  // `logits` [row.logits, vocab]. The row has 0 <= choices <= logits.
  engine::Sample choose(const engine::Row& row, std::span<const float> logits);

 private:
  std::size_t mask_words() const { return (vocab_ + 31) / 32; }
  std::span<const std::uint32_t> allowed(const engine::ChoiceContext& context, std::size_t choice);
  engine::TokenId choose_one(const engine::Row& row, std::span<const float> logits,
                             std::size_t choice);

  std::size_t vocab_;
  std::size_t sampled_vocab_;
  Penalties penalties_;
  LogprobReader logprobs_;
  std::vector<float> shifted_;          // one position's logits with penalties and bias
  std::vector<std::uint32_t> allowed_;  // one position's mask without banned tokens
};

}  // namespace dsm::model
