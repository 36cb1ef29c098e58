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
  // Logits of the `wanted` tokens of the batch. Collective. On rank 0 [wanted, vocab], minus
  // infinity from id `sampled_vocab` on; elsewhere empty. Valid until the next call. Memory grows
  // to the largest number of wanted tokens seen.
  std::span<const float> run(Step& step, std::span<const std::int32_t> wanted, const float* norm,
                             const kernels::PackedMatrix& w, int sampled_vocab);

 private:
  float* hidden_;                // [T, hidden] of the wanted tokens
  device::Results local_;        // [wanted, local vocab]
  std::vector<float> gathered_;  // [ranks, wanted, local vocab]
  device::Results logits_;       // [wanted, vocab]
};

}  // namespace dsm::model
