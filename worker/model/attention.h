// Attention of one rank, with the KV cache of its layers. Two kinds, chosen by the configuration:
//   LatentAttention   DeepSeek-V2's and V3's, absorbed: the cache holds one latent and one rotated
//                     key per token, and queries go to the latent's space; V3.2's is over the
//                     tokens that an indexer selects (indexer.h)
//   GroupedAttention  Llama's and Qwen's: each KV head serves a group of query heads; where there
//                     are more ranks than KV heads, neighbouring ranks hold the same one
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <variant>
#include <vector>

#include "worker/model/expanded_attention.h"
#include "worker/model/indexer.h"
#include "worker/model/kv_layer.h"
#include "worker/model/step.h"
#include "worker/model/weights.h"

namespace dsm::model {

// The work items of a batch's attention; the same in every layer.
class AttentionItems {
 public:
  // `heads` query heads for each of `kv_heads`.
  AttentionItems(const Step& step, int heads, int kv_heads);
  void build(const Step& step, std::span<const TokenRun> runs);

  const kernels::AttentionItem* data() const { return items_.data(); }
  int count() const { return static_cast<int>(items_.size()); }
  std::span<const kernels::AttentionItem> all() const { return items_; }
  int heads() const { return heads_; }

 private:
  int heads_;
  int kv_heads_;
  std::vector<kernels::AttentionItem> items_;
};

class LatentAttention {
 public:
  // A cache of `layers` layers, each as `kv` says.
  // `expands`: long prompts are computed with expanded keys and values.
  LatentAttention(Step& step, int layers, const KvSpec& kv, bool expands);
  // Once per batch, before its layers.
  void prepare(const Step& step);
  // Those of every layer.
  std::span<const kernels::AttentionItem> items() const { return items_.all(); }
  // Writes keys and values of the batch's tokens, then x += attention(norm(x)). Collective where
  // ranks attend together.
  void run(Step& step, int layer, const LayerWeights& w);

 private:
  // Consecutive tokens of the batch.
  struct Range {
    int begin = 0;
    int end = 0;
  };
  void absorb(Step& step, Range range, const kernels::KvLayer& kv, const LatentWeights& w);

  int heads_;  // local
  float scale_;
  std::vector<kernels::KvLayer> kv_;
  AttentionItems items_;
  std::optional<Indexer> indexer_;
  std::optional<ExpandedAttention> expanded_;
  std::vector<TokenRun> long_runs_;      // of the batch: those that are expanded
  std::vector<TokenRun> absorbed_runs_;  // the others
  std::vector<Range> absorbed_;          // their tokens
  float* latents_;                       // [T, q_lora | kv_lora | rope]
  float* q_latent_;                      // [T, q_lora]
  float* q_;                             // [T, local heads, nope | rope]
  float* query_;                         // [T, local heads, kv_lora | rope]
  float* mixed_;                         // [T, local heads, kv_lora]
  float* values_;                        // [T, local heads, v]
  kernels::Fp8Rows values_fp8_;
  kernels::Group everyone_;
};

class GroupedAttention {
 public:
  GroupedAttention(Step& step, int layers, const KvSpec& kv);
  void prepare(const Step& step) { items_.build(step, step.runs); }
  std::span<const kernels::AttentionItem> items() const { return items_.all(); }
  void run(Step& step, int layer, const LayerWeights& w);

 private:
  int heads_;     // local query heads
  int kv_heads_;  // local
  float scale_;
  std::vector<kernels::KvLayer> kv_;
  AttentionItems items_;
  float* qkv_;    // [T, local heads | local KV heads | local KV heads, head]
  float* query_;  // [T, local heads, head]
  float* mixed_;  // [T, local heads, head]
  kernels::Fp8Rows mixed_fp8_;
  kernels::Group everyone_;
};

using Attention = std::variant<LatentAttention, GroupedAttention>;
Attention make_attention(Step& step, int layers, const KvSpec& kv, bool expands);

// Once per batch, before its layers: sends its lists to the device, attention's among them.
void stage(Step& step, Attention& attention, std::span<const std::int32_t> wanted,
           std::span<const kernels::Choice> choices = {});
// Writes keys and values, then x += attention(norm(x)), of those rows that are this rank's to
// attend to; then every rank has x of all of them. Collective.
void attend(Step& step, Attention& attention, int layer, const LayerWeights& w);

}  // namespace dsm::model
