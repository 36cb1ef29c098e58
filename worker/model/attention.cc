#include "worker/model/attention.h"

#include <algorithm>

#include "worker/model/own_rows.h"

namespace dsm::model {
namespace {

// (token, head) pairs of an item: all that the kernel takes when one thread works, since pairs of
// one item share what they read of the cache; fewer when there is little to share out between
// several.
int rows_per_item(std::int64_t pairs, int threads) {
  if (threads == 1) return kernels::kAttentionRows;
  return static_cast<int>(
      std::clamp<std::int64_t>(pairs / (2 * threads), 4, kernels::kAttentionRows));
}

}  // namespace

AttentionItems::AttentionItems(const Step& step, int heads, int kv_heads)
    : heads_(heads), kv_heads_(kv_heads) {
  items_.reserve(static_cast<std::size_t>(step.max_tokens) * static_cast<std::size_t>(heads) *
                 static_cast<std::size_t>(kv_heads));
}

void AttentionItems::build(const Step& step, std::span<const TokenRun> runs) {
  items_.clear();
  const int rows = rows_per_item(std::int64_t{step.tokens} * heads_ * kv_heads_, step.threads);
  for (const TokenRun& run : runs) {
    const int begin = run.begin * heads_;
    const int end = begin + run.size * heads_;
    for (int kv_head = 0; kv_head < kv_heads_; ++kv_head) {
      for (int at = begin; at < end; at += rows) {
        items_.push_back({at, std::min(end, at + rows), run.block_table, kv_head});
      }
    }
  }
}

Attention make_attention(Step& step, int layers, const KvSpec& kv, bool expands) {
  if (step.c.attention == AttentionKind::kGrouped) {
    return GroupedAttention(step, layers, kv);
  }
  return LatentAttention(step, layers, kv, expands);
}

void stage(Step& step, Attention& attention, std::span<const std::int32_t> wanted,
           std::span<const kernels::Choice> choices) {
  {
    const OwnRows own(step);
    std::visit([&](auto& kind) { kind.prepare(step); }, attention);
  }
  step.stage(std::visit([](auto& kind) { return kind.items(); }, attention), wanted, choices);
}

void attend(Step& step, Attention& attention, int layer, const LayerWeights& w) {
  {
    const OwnRows own(step);
    if (step.tokens > 0) {
      std::visit([&](auto& kind) { kind.run(step, layer, w); }, attention);
    }
  }
  step.gather_x();
}

}  // namespace dsm::model
