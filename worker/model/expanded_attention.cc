#include "worker/model/expanded_attention.h"

#include <algorithm>
#include <numeric>

namespace dsm::model {
namespace {

using kernels::kKvBlock;

// Positions whose expansion is held.
constexpr int kMostPositions = 8192;
// And those that are expanded at a time (sizing/memory.cc counts both): products of so many rows
// use all of a GPU, and what they are made of and give stays in its second cache.
constexpr int kAtOnce = 1024;

// A GPU attends to latents by splits of the cache (16 TFLOP/s were measured), and expands by
// products of many rows (400), for which keys and values are written, too: so many multiply-adds in
// the time of one.
constexpr int kGpuFactor = 8;
// Those of attention to latents in the time of the launches that a run of its own takes, 50 us.
constexpr std::int64_t kGpuLaunches = 400'000'000;
// Attention to heads wants so many rows there.
constexpr int kFewOnGpu = 64;

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
  positions_ = std::min(blocks_ * kKvBlock, kAtOnce);
  const auto rows = static_cast<std::size_t>(positions_);
  latents_ = floats(rows * static_cast<std::size_t>(c.kv_lora_rank));
  rotated_ = floats(rows * static_cast<std::size_t>(c.qk_rope_head_dim));
  expanded_ = floats(rows * static_cast<std::size_t>(heads) *
                     static_cast<std::size_t>(c.qk_nope_head_dim + c.v_head_dim));
  table_.resize(static_cast<std::size_t>(blocks_));
  std::iota(table_.begin(), table_.end(), 0);
  items_.reserve(static_cast<std::size_t>(heads) *
                 static_cast<std::size_t>(step.max_tokens / kernels::kAttentionRows + 1));
}

bool ExpandedAttention::pays(const Step& step, const TokenRun& run) const {
  const ModelConfig& c = step.c;
  const std::int64_t expanded = c.qk_nope_head_dim + c.v_head_dim;         // per head and position
  const std::int64_t saved = std::int64_t{2} * c.kv_lora_rank - expanded;  // per pair
  const std::int64_t past = past_of(step, run);
  if (past > std::int64_t{blocks_} * kKvBlock) return false;
  // A prompt's tokens see half of it on average.
  if (run.size * saved > 2 * expanded * c.kv_lora_rank) return true;
  if (step.backend.reaches_host() || run.size < kFewOnGpu) return false;
  const std::int64_t pairs = run.size * (2 * past - run.size) / 2;
  return heads_ * pairs * saved >
         heads_ * past * expanded * c.kv_lora_rank / kGpuFactor + kGpuLaunches;
}

void ExpandedAttention::run(Step& step, const TokenRun& run, const kernels::KvLayer& cache,
                            const LatentWeights& w, float scale, float* q, float* values) {
  const ModelConfig& c = step.c;
  device::Backend& backend = step.backend;
  const int nope = c.qk_nope_head_dim;
  const auto past = static_cast<int>(past_of(step, run));
  for (int begin = 0; begin < past; begin += positions_) {
    const int rows = std::min(positions_, past - begin);
    const std::int64_t slots = std::int64_t{begin} * heads_;  // of keys and values before these
    backend.latent_read({cache, run.block_table + begin / kKvBlock, rows, latents_, rotated_});
    backend.linear({.x = latents_,
                    .ldx = cache.value_dim,
                    .w = &w.expand,
                    .y = expanded_,
                    .ldy = w.expand.n,
                    .rows = rows});
    backend.heads_expand({.x = expanded_,
                          .rotated = rotated_,
                          .keys = keys_ + slots * kv_.key_dim,
                          .values = values_ + slots * kv_.value_dim,
                          .rows = rows,
                          .heads = heads_,
                          .nope = nope,
                          .rope = c.qk_rope_head_dim,
                          .value = c.v_head_dim});
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
