// The output head of one rank: the last norm and this rank's part of the vocabulary. Logits stay on
// the device, those of rank 0 of the whole vocabulary: tokens are chosen from them there, and what
// else is wanted is copied to the host.
#pragma once

#include <cstdint>
#include <span>

#include "worker/model/step.h"

namespace dsm::model {

class Head {
 public:
  // Tokens whose logits are there at a time. More are a large model's in very large steps, or a
  // prompt whose log probabilities are asked for.
  static constexpr std::size_t kTokens = 256;

  // Ids from `sampled_vocab` on are padding, as in RankSpec.
  Head(Step& step, const kernels::PackedMatrix& w, int sampled_vocab);

  // For each of some tokens of the batch: a token is chosen from its logits, or, where the choice
  // is not wanted, they go to the host. Both are lists.
  struct Wanted {
    std::span<const std::int32_t> tokens;
    std::span<const kernels::Choice> choices;

    Wanted part(std::size_t begin, std::size_t end) const {
      return {tokens.subspan(begin, end - begin), choices.subspan(begin, end - begin)};
    }
  };

  // Before a step: memory for so many tokens' logits on the host, which grows to the largest number
  // seen.
  void start(Step& step, std::size_t to_host);
  // Collective. Of up to kTokens tokens; chosen() has them from place `at` on. The operators are
  // the same whatever the choices are.
  void compute(Step& step, const Wanted& part, std::size_t at, const float* norm);
  // Copies to the host what goes there of what was computed last.
  void hand_out(Step& step, const Wanted& part);

  // After Backend::wait(), on rank 0: by places, of choices that were wanted ...
  const std::int32_t* chosen() const { return chosen_; }
  // ... and [tokens, vocab] in the order of the others, minus infinity for padding.
  std::span<const float> logits(const Step& step);

 private:
  const kernels::PackedMatrix& w_;
  int sampled_vocab_;
  float* hidden_;            // [kTokens, hidden] of the wanted tokens
  float* mine_ = nullptr;    // [kTokens, local vocab]
  float* parts_ = nullptr;   // [ranks, kTokens, local vocab]
  float* all_ = nullptr;     // [kTokens, vocab]; of one rank `mine_`
  std::int32_t* chosen_;     // [T]
  device::Results on_host_;  // [handed_, vocab]
  std::size_t handed_ = 0;
};

}  // namespace dsm::model
