// Latent attention of long prompts in the loose mode: keys and values of the heads are expanded
// from the cache's latents, once for all of a prompt's tokens, and attention runs over them. A pair
// of tokens then costs (nope + rope) + v multiply-adds instead of (latent + rope) + latent, a third
// of it for DeepSeek's sizes, for an expansion of latent * (nope + v) per head and position of the
// past.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/model/step.h"
#include "worker/model/weights.h"

namespace dsm::model {

class ExpandedAttention {
 public:
  // Not for sparse attention, nor for heads that vectors of 16 lanes do not divide.
  static bool fits(const ModelConfig& config);

  // For pasts of up to `past_blocks` blocks, or as many as are expanded at all.
  ExpandedAttention(Step& step, int heads, int past_blocks);
  // A run has enough tokens for its past's expansion, and a past that the scratch memory holds.
  bool pays(const Step& step, const TokenRun& run) const;
  // values [T, heads, v] of the run's tokens from q [T, heads, nope | rope], whose rope part is
  // rotated on the way. The cache holds the run's own tokens already.
  void run(Step& step, const TokenRun& run, const kernels::KvLayer& cache, const LatentWeights& w,
           float scale, float* q, float* values);

 private:
  int heads_;
  int blocks_;                       // of 64 positions, that the scratch memory holds
  float* keys_;                      // [blocks, heads, nope + rope, 64]
  float* values_;                    // [blocks, heads, 64, v]
  kernels::KvLayer kv_;              // both, in FP32
  float* latents_;                   // [64, latent] of a block of the cache
  float* rotated_;                   // [rope, 64]
  float* k_;                         // [64, heads, nope]
  std::vector<std::int32_t> table_;  // 0, 1, 2, ...
  std::vector<kernels::AttentionItem> items_;
};

}  // namespace dsm::model
