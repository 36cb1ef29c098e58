// One rank's slice of a checkpoint, packed for its device. Split over ranks: attention heads, MLP
// and expert columns (or the experts themselves), the vocabulary of the head. On every rank:
// embedding, norms, router, indexer, the projections to q's and kv's latents. KV heads are split
// where there are enough of them, else each stands on several neighbouring ranks. Attention may
// stand whole on every rank (attention_cut()).
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/result.h"
#include "kernels/params.h"
#include "worker/device/devices.h"
#include "worker/model/config.h"
#include "worker/model/rank_cut.h"
#include "worker/model/safetensors.h"
#include "worker/model/weight_loader.h"

namespace dsm::model {

// This rank's share of `total` units that divide by the number of ranks.
struct Share {
  int begin = 0;
  int end = 0;
  int size() const { return end - begin; }
};
constexpr Share share_of(int total, int rank, int ranks) {
  return {total / ranks * rank, total / ranks * (rank + 1)};
}

// This rank's KV heads: those that its query heads use.
constexpr Share kv_heads_of(int total, int rank, int ranks) {
  if (total % ranks == 0) return share_of(total, rank, ranks);
  const int head = rank / (ranks / total);
  return {head, head + 1};
}

// The experts that a rank computes: all, each in part, or its share of them as a whole.
constexpr Share experts_of(int total, int rank, int ranks, bool expert_parallel) {
  return expert_parallel ? share_of(total, rank, ranks) : Share{0, total};
}

// Whole on every rank.
struct IndexerWeights {
  kernels::PackedMatrix query;        // q_lora -> heads * head_dim
  kernels::PackedMatrix key;          // hidden -> head_dim
  const float* key_norm = nullptr;    // [head_dim]
  const float* key_bias = nullptr;    // [head_dim]
  kernels::PackedMatrix head_weight;  // hidden -> heads
};

struct LatentWeights {
  kernels::PackedMatrix latents;   // hidden -> q_lora | kv_lora | rope
  const float* q_norm = nullptr;   // [q_lora]; null without q_lora
  const float* kv_norm = nullptr;  // [kv_lora]
  kernels::PackedMatrix q;         // q_lora (without it, hidden) -> local heads * (nope | rope)
  std::vector<kernels::PackedMatrix>
      key_up;  // [local heads] nope -> kv_lora (the key half of kv_b, transposed)
  std::vector<kernels::PackedMatrix> value_up;  // [local heads] kv_lora -> v
  // kv_lora -> local heads * (nope | v), where keys are expanded. The memory of value_up is a part
  // of its memory if panels hold parts of one head alone.
  kernels::PackedMatrix expand;
  IndexerWeights indexer;  // filled as the configuration says
};

struct GroupedWeights {
  kernels::PackedMatrix qkv;          // hidden -> (local heads | local KV heads twice) * head
  const float* bias = nullptr;        // [qkv.n]; null: none
  const float* query_norm = nullptr;  // [head], of each; null: none
  const float* key_norm = nullptr;    // [head]
};

struct LayerWeights {
  const float* attention_norm = nullptr;  // [hidden]
  LatentWeights latent;                   // one of the two is filled, as the configuration says
  GroupedWeights grouped;
  kernels::SegmentedMatrix output;  // local heads * v -> hidden

  const float* mlp_norm = nullptr;     // [hidden]
  kernels::PackedMatrix router;        // hidden -> experts; n = 0 in a dense layer
  const float* router_bias = nullptr;  // [experts]; null: the router has none
  std::vector<kernels::PackedMatrix>
      gate_up;  // dense: one; else the shared expert, then this rank's experts by id
  std::vector<kernels::SegmentedMatrix> down;  // as gate_up
};

// The multi-token-prediction layer (mtp.h).
struct MtpWeights {
  const float* embedding_norm = nullptr;  // [hidden] enorm
  const float* state_norm = nullptr;      // [hidden] hnorm
  kernels::PackedMatrix join;             // normed embedding | normed state -> hidden
  LayerWeights layer;
  const float* norm = nullptr;  // [hidden] before the head
};

struct ModelWeights {
  const void* embedding = nullptr;  // [vocab, hidden], as EmbeddingParams has it
  kernels::DType embedding_dtype = kernels::DType::kBF16;
  const float* embedding_scales = nullptr;
  std::vector<LayerWeights> layers;
  const float* final_norm = nullptr;  // [hidden]
  std::optional<MtpWeights> mtp;
  // hidden -> this rank's part of the vocabulary. Its memory may be a part of the embedding's,
  // where both are the same in integers.
  kernels::PackedMatrix head;
};

// What a rank takes.
// Whether row-parallel weights, adapters' too, are cut into segments, so that sums do not depend on
// the number of ranks. A GPU's sums have an order of their own.
constexpr bool cuts_segments(device::Device device, bool deterministic) {
  return deterministic && device == device::Device::kCpu;
}

// What embedding and head become with the others, also beside INT4: with 4 bits of the head logits
// of tokens that are about as likely change places.
inline constexpr kernels::DType kRoundedHead = kernels::DType::kInt8;

struct WeightSlice {
  int rank = 0;
  int ranks = 1;
  bool mtp = false;  // the multi-token-prediction layer, too
  // Row-parallel weights are cut into kSegments, whatever the number of ranks; else into one each.
  bool segmented = true;
  bool expands = false;          // take what expands keys of the cache (expanded_attention.h), too
  bool expert_parallel = false;  // whole experts, by experts_of(); not `segmented`
  bool data_parallel_attention = false;  // latent attention whole
  // kInt8 or kInt4: the projections of attention and the matrices of MLPs and experts are rounded
  // to integers (kernels/cpu/integers.h), and embedding and head to kRoundedHead. The rest stays as
  // it is stored: norms, router and indexer decide experts and positions, and are a small part of
  // the bytes; kv_b_proj is used along its rows and along its columns, and scales run along rows
  // only. Those of these matrices that the checkpoint has in integers are kept so, the head among
  // them, whatever is asked for; the rest of what it has in integers becomes FP32.
  std::optional<kernels::DType> round_to = {};
};

// Bytes of a slice, as they stand in the checkpoint; checks names and shapes.
Result<std::int64_t> count_weights(const Checkpoint& checkpoint, const ModelConfig& config,
                                   const WeightSlice& slice);

// Checks every shape before it reads the first weight. `progress` counts bytes of this rank's
// slice; it is called on the caller's thread.
Result<ModelWeights> load_weights(const Checkpoint& checkpoint, const ModelConfig& config,
                                  const WeightSlice& slice, device::Backend& backend,
                                  const LoadProgress& progress);

}  // namespace dsm::model
