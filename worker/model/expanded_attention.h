// Latent attention of long prompts in the loose mode: keys and values of the heads are expanded
// from the cache's latents, once for all of a prompt's tokens, and attention runs over them, all
// heads in one call. Positions are expanded many at a time: a device has few operators to start for
// a past, and products with many rows. A pair
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
  int positions_;                    // that are expanded at a time, some blocks of 64
  float* latents_;                   // [positions, latent]
  float* rotated_;                   // [blocks of them, rope, 64]
  float* expanded_;                  // [positions, heads, nope | v]
  std::vector<std::int32_t> table_;  // 0, 1, 2, ...
  std::vector<kernels::AttentionItem> items_;
};

}  // namespace dsm::model
