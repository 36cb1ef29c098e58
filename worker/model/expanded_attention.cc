#include "worker/model/expanded_attention.h"

#include <algorithm>
#include <numeric>

namespace dsm::model {
namespace {

using kernels::kKvBlock;

// Positions whose expansion is held at a time.
constexpr int kMostPositions = 8192;

std::int64_t past_of(const Step& step, const TokenRun& run) {
  return step.places[run.begin + run.size - 1].position + 1;
}

}  // namespace

bool ExpandedAttention::fits(const ModelConfig& c) {
  return !c.indexer && c.v_head_dim % 16 == 0;
}

ExpandedAttention::ExpandedAttention(Step& step, int heads, int past_blocks)
    : heads_(heads),
      blocks_(std::min({past_blocks, kMostPositions / kKvBlock,
                        (step.c.max_positions + kKvBlock - 1) / kKvBlock})) {
  const ModelConfig& c = step.c;
  const auto slots = static_cast<std::size_t>(blocks_) * kKvBlock * static_cast<std::size_t>(heads);
  const auto floats = [&](std::size_t count) {
    return device::allocate<float>(step.backend, count);
  };
  keys_ = floats(slots * static_cast<std::size_t>(c.qk_head_dim()));
  values_ = floats(slots * static_cast<std::size_t>(c.v_head_dim));
  kv_ = {keys_, values_, heads, c.qk_head_dim(), c.v_head_dim};
  latents_ = floats(std::size_t{kKvBlock} * static_cast<std::size_t>(c.kv_lora_rank));
  rotated_ = floats(std::size_t{kKvBlock} * static_cast<std::size_t>(c.qk_rope_head_dim));
  k_ = floats(static_cast<std::size_t>(kKvBlock * heads) *
              static_cast<std::size_t>(c.qk_nope_head_dim));
  table_.resize(static_cast<std::size_t>(blocks_));
  std::iota(table_.begin(), table_.end(), 0);
  items_.reserve(static_cast<std::size_t>(heads) *
                 static_cast<std::size_t>(step.max_tokens / kernels::kAttentionRows + 1));
}

bool ExpandedAttention::pays(const Step& step, const TokenRun& run) const {
  const ModelConfig& c = step.c;
  const std::int64_t expanded = c.qk_nope_head_dim + c.v_head_dim;         // per head and position
  const std::int64_t saved = std::int64_t{2} * c.kv_lora_rank - expanded;  // per pair
  // A prompt's tokens see half of it on average.
  return past_of(step, run) <= std::int64_t{blocks_} * kKvBlock &&
         run.size * saved > 2 * expanded * c.kv_lora_rank;
}

void ExpandedAttention::run(Step& step, const TokenRun& run, const kernels::KvLayer& cache,
                            const LatentWeights& w, float scale, float* q, float* values) {
  const ModelConfig& c = step.c;
  device::Backend& backend = step.backend;
  const int nope = c.qk_nope_head_dim;
  const auto past = static_cast<int>(past_of(step, run));
  for (int b = 0; b * kKvBlock < past; ++b) {
    const int rows = std::min(kKvBlock, past - b * kKvBlock);
    const std::int32_t block = run.block_table[b];
    const std::int64_t to = std::int64_t{b} * heads_ * kKvBlock;
    backend.latent_read({cache, block, rows, latents_, rotated_});
    backend.linear({.x = latents_,
                    .ldx = cache.value_dim,
                    .w = w.key_expand.data(),
                    .y = k_,
                    .ldy = heads_ * nope,
                    .y_step = nope,
                    .rows = rows,
                    .batch = heads_});
    backend.key_expand({.k = k_,
                        .rotated = rotated_,
                        .keys = keys_ + to * kv_.key_dim,
                        .rows = rows,
                        .heads = heads_,
                        .nope = nope,
                        .rope = c.qk_rope_head_dim});
    backend.linear({.x = latents_,
                    .ldx = cache.value_dim,
                    .w = w.value_up.data(),
                    .y = values_ + to * kv_.value_dim,
                    .ldy = kv_.value_dim,
                    .y_step = std::int64_t{kKvBlock} * kv_.value_dim,
                    .rows = rows,
                    .batch = heads_});
  }
  float* query = q + std::int64_t{run.begin} * heads_ * kv_.key_dim;
  const kernels::TokenPlace* places = step.places + run.begin;
  backend.rope_query({query, heads_ * kv_.key_dim, kv_.key_dim, nope, query, kv_.key_dim, nope,
                      places, step.rope, run.size, heads_});
  items_.clear();
  for (int head = 0; head < heads_; ++head) {
    for (int at = 0; at < run.size; at += kernels::kAttentionRows) {
      items_.push_back({at, std::min(run.size, at + kernels::kAttentionRows), table_.data(), head});
    }
  }
  backend.attention({query, values + std::int64_t{run.begin} * heads_ * kv_.value_dim, places,
                     items_.data(), static_cast<int>(items_.size()), 1, kv_, scale});
}

}  // namespace dsm::model
