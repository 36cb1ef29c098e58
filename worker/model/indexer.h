// DeepSeek-V3.2's lightning indexer of one rank: it scores each token's past with small heads of
// its own and selects the index_topk best positions, over which latent attention then runs. Its
// keys are a cache beside the latents', over the same blocks.
//
// Every rank holds all of it and computes the same bits, so all ranks select alike. The Hadamard
// transform of DeepSeek's own code, which prepares queries and keys for FP8, is left out: it
// changes no product of the two.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/model/kv_layer.h"
#include "worker/model/step.h"
#include "worker/model/weights.h"

namespace dsm::model {

class Indexer {
 public:
  // A cache of `layers` layers, each with the blocks that `kv` says.
  Indexer(Step& step, int layers, const KvSpec& kv);
  // Once per batch, before its layers.
  void prepare(const Step& step);
  // Writes the keys of the batch's tokens and selects for each of them. Takes step.normed and the
  // normed latents of the queries. Valid until the next call.
  kernels::Selection run(Step& step, int layer, const IndexerWeights& w, const float* q_latent);

 private:
  IndexerConfig c_;
  kernels::RopeTable rope_;  // the model's angles; pairs are halves, unlike the attention's
  float scale_;
  std::vector<kernels::IndexKeys> keys_;
  std::vector<const std::int32_t*> block_tables_;  // [T]
  bool selects_ = false;  // some token of the batch sees more than index_topk positions
  float* key_;            // [T, head_dim]
  float* query_;          // [T, heads, head_dim]
  float* head_weight_;    // [T, heads]
  float* scores_;         // [kIndexRows, positions]
  std::int64_t ld_scores_;
  kernels::Selection selection_;  // [T]
};

}  // namespace dsm::model
