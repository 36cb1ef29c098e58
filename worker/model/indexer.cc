#include "worker/model/indexer.h"

#include <algorithm>
#include <cmath>

namespace dsm::model {

using device::allocate;

namespace {
constexpr float kKeyEps = 1e-6F;  // of the keys' norm, whatever rms_norm_eps says
}  // namespace

Indexer::Indexer(Step& step, int layers, const KvSpec& kv)
    : c_(*step.c.indexer),
      rope_(step.rope),
      scale_(static_cast<float>(1 / std::sqrt(static_cast<double>(c_.heads) * c_.head_dim))) {
  rope_.halves = true;
  const auto dim = static_cast<std::size_t>(c_.head_dim);
  const auto heads = static_cast<std::size_t>(c_.heads);
  const auto t = static_cast<std::size_t>(step.max_tokens);
  const auto floats = [&](std::size_t count) { return allocate<float>(step.backend, count); };
  for (int i = 0; i < layers; ++i) {
    const auto keys = static_cast<std::size_t>(kv.num_blocks) * kernels::kKvBlock;
    keys_.push_back({device::allocate_cache<float>(step.backend, keys * dim), c_.head_dim});
  }
  // A sequence ends where the model's positions or the cache do.
  const std::int64_t words = std::min<std::int64_t>(
      kv.longest_past(),
      kernels::round_up(step.c.max_positions, kernels::kKvBlock) / kernels::kKvBlock);
  ld_scores_ = words * kernels::kKvBlock;
  key_ = floats(t * dim);
  query_ = floats(t * heads * dim);
  head_weight_ = floats(t * heads);
  scores_ = floats(kernels::kIndexRows * static_cast<std::size_t>(ld_scores_));
  selection_ = {allocate<std::uint64_t>(step.backend, t * static_cast<std::size_t>(words)), words};
  block_tables_.reserve(t);
}

void Indexer::prepare(const Step& step) {
  block_tables_.clear();
  for (const TokenRun& run : step.runs) {
    block_tables_.insert(block_tables_.end(), static_cast<std::size_t>(run.size), run.block_table);
  }
  selects_ = std::any_of(step.places, step.places + step.tokens,
                         [&](const auto& place) { return place.position >= c_.top_k; });
}

kernels::Selection Indexer::run(Step& step, int layer, const IndexerWeights& w,
                                const float* q_latent) {
  device::Backend& backend = step.backend;
  const kernels::IndexKeys& keys = keys_[static_cast<std::size_t>(layer)];
  const int width = c_.heads * c_.head_dim;
  step.linear({.x = step.normed, .w = &w.key, .y = key_, .ldy = c_.head_dim});
  backend.index_write(
      {key_, w.key_norm, w.key_bias, step.places, keys, rope_, step.tokens, kKeyEps});
  if (!selects_) return {};
  step.linear({.x = q_latent, .w = &w.query, .y = query_, .ldy = width});
  // In place: the first dimensions of each head.
  backend.rope_query({query_, width, c_.head_dim, 0, query_, c_.head_dim, 0, step.places, rope_,
                      step.tokens, c_.heads});
  step.linear({.x = step.normed, .w = &w.head_weight, .y = head_weight_, .ldy = c_.heads});
  backend.index_select({.query = query_,
                        .weights = head_weight_,
                        .places = step.places,
                        .block_tables = block_tables_.data(),
                        .keys = keys,
                        .tokens = step.tokens,
                        .heads = c_.heads,
                        .top_k = c_.top_k,
                        .scale = scale_,
                        .scores = scores_,
                        .ld_scores = ld_scores_,
                        .selection = selection_});
  return selection_;
}

}  // namespace dsm::model
