// The output head of one rank: the last norm and this rank's part of the vocabulary.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "worker/model/step.h"

namespace dsm::model {

class Head {
 public:
  explicit Head(Step& step);
  // Memory for the logits of so many tokens, which grows to the largest number seen.
  void reserve(Step& step, std::size_t wanted, const kernels::PackedMatrix& w);
  // This rank's logits of the `wanted` tokens of the batch.
  void compute(Step& step, std::span<const std::int32_t> wanted, const float* norm,
               const kernels::PackedMatrix& w);
  // Waits for them. Collective. On rank 0 the first `count` tokens' logits [count, vocab], minus
  // infinity from id `sampled_vocab` on; elsewhere empty. Valid until the next reserve().
  std::span<const float> gather(Step& step, std::size_t count, const kernels::PackedMatrix& w,
                                int sampled_vocab);

 private:
  float* mine(const Step& step) const { return step.ranks > 1 ? local_.data() : logits_.data(); }

  float* hidden_;                // [T, hidden] of the wanted tokens
  device::Results local_;        // [wanted, local vocab]
  std::vector<float> gathered_;  // [ranks, wanted, local vocab]
  device::Results logits_;       // [wanted, vocab]
};

}  // namespace dsm::model
