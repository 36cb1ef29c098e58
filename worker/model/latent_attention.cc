#include "worker/model/attention.h"

namespace dsm::model {

using device::allocate;

namespace {
// Of the norms of the two latents: DeepSeek's code gives them this one whatever rms_norm_eps says.
constexpr float kLatentEps = 1e-6F;
}  // namespace

LatentAttention::LatentAttention(Step& step, int layers, const KvSpec& kv, bool expands)
    : heads_(share_of(step.c.num_heads, step.attention.rank, step.attention.ranks).size()),
      scale_(attention_scale(step.c)),
      items_(step, heads_, 1) {
  const ModelConfig& c = step.c;
  const auto latent = static_cast<std::size_t>(c.kv_lora_rank);
  const auto key = latent + static_cast<std::size_t>(c.qk_rope_head_dim);
  for (int i = 0; i < layers; ++i) {
    kv_.push_back(make_latent_cache(step.backend, kv, c.kv_lora_rank, c.qk_rope_head_dim));
  }
  const auto t = static_cast<std::size_t>(step.max_tokens);
  const auto h = static_cast<std::size_t>(heads_);
  const auto floats = [&](std::size_t count) { return allocate<float>(step.backend, count); };
  latents_ = floats(t * (static_cast<std::size_t>(c.q_lora_rank) + key));
  q_latent_ = floats(t * static_cast<std::size_t>(c.q_lora_rank));
  q_ = floats(t * h * static_cast<std::size_t>(c.qk_head_dim()));
  query_ = floats(t * h * key);
  mixed_ = floats(t * h * latent);
  values_ = floats(t * h * static_cast<std::size_t>(c.v_head_dim));
  values_fp8_ = step.fp8_rows(t, h * static_cast<std::size_t>(c.v_head_dim));
  if (c.indexer) indexer_.emplace(step, layers, kv);
  if (expands && ExpandedAttention::fits(c)) expanded_.emplace(step, heads_, kv.longest_past());
  long_runs_.reserve(t);
  absorbed_runs_.reserve(t);
  absorbed_.reserve(t);
}

void LatentAttention::prepare(const Step& step) {
  long_runs_.clear();
  absorbed_runs_.clear();
  absorbed_.clear();
  for (const TokenRun& run : step.runs) {
    if (expanded_ && expanded_->pays(step, run)) {
      long_runs_.push_back(run);
      continue;
    }
    absorbed_runs_.push_back(run);
    const int end = run.begin + run.size;
    if (!absorbed_.empty() && absorbed_.back().end == run.begin) {
      absorbed_.back().end = end;
    } else {
      absorbed_.push_back({run.begin, end});
    }
  }
  items_.build(step, absorbed_runs_);
  if (indexer_) indexer_->prepare(step);
}

// The query goes to the latent's space, so keys are never expanded.
void LatentAttention::absorb(Step& step, Range range, const kernels::KvLayer& kv,
                             const LatentWeights& w) {
  const int qk = step.c.qk_head_dim();
  const std::int64_t tokens = range.begin;
  const float* q = q_ + tokens * heads_ * qk;
  float* query = query_ + tokens * heads_ * kv.key_dim;
  step.backend.linear({.x = q,
                       .ldx = heads_ * qk,
                       .x_step = qk,
                       .w = w.key_up.data(),
                       .y = query,
                       .ldy = heads_ * kv.key_dim,
                       .y_step = kv.key_dim,
                       .rows = range.end - range.begin,
                       .batch = heads_});
  step.backend.rope_query({q, heads_ * qk, qk, step.c.qk_nope_head_dim, query, kv.key_dim,
                           kv.value_dim, step.places + range.begin, step.rope,
                           range.end - range.begin, heads_});
}

void LatentAttention::run(Step& step, int layer, const LayerWeights& weights) {
  const ModelConfig& c = step.c;
  const LatentWeights& w = weights.latent;
  device::Backend& backend = step.backend;
  const kernels::KvLayer& kv = kv_[static_cast<std::size_t>(layer)];
  const std::int64_t lda = w.latents.n;
  const bool latents_alone = c.q_lora_rank > 0;  // else queries are a product of the same rows
  const bool plain =
      !indexer_ && (latents_alone || step.next(w.q).products == step.next(w.latents).products);
  step.norm(weights.attention_norm,
            plain ? step.next(w.latents, latents_alone ? 1 : 2) : NextProducts{});
  step.linear({.x = step.normed, .w = &w.latents, .y = latents_, .ldy = lda});
  step.adapted.linear(layer, &AdapterLayer::latents, step.normed, c.hidden_size, latents_, lda);
  const float* q_input = step.normed;
  if (c.q_lora_rank > 0) {
    backend.rms_norm({latents_, lda, nullptr, w.q_norm, q_latent_, c.q_lora_rank, step.tokens,
                      c.q_lora_rank, kLatentEps});
    q_input = q_latent_;
  }
  backend.kv_write({latents_ + c.q_lora_rank, lda, w.kv_norm, step.places, kv, step.rope,
                    step.tokens, kLatentEps});
  const kernels::Selection selection =
      indexer_ ? indexer_->run(step, layer, w.indexer, q_latent_) : kernels::Selection{};
  step.linear({.x = q_input, .w = &w.q, .y = q_, .ldy = heads_ * c.qk_head_dim()});
  const std::int64_t q_width = c.q_lora_rank > 0 ? c.q_lora_rank : c.hidden_size;
  step.adapted.linear(layer, &AdapterLayer::q, q_input, q_width, q_, heads_ * c.qk_head_dim());
  for (const Range& range : absorbed_) absorb(step, range, kv, w);
  backend.attention(
      {query_, mixed_, step.places, items_.data(), items_.count(), heads_, kv, scale_, selection});
  for (const auto& [begin, end] : absorbed_) {
    backend.linear({.x = mixed_ + std::int64_t{begin} * heads_ * kv.value_dim,
                    .ldx = heads_ * kv.value_dim,
                    .x_step = kv.value_dim,
                    .w = w.value_up.data(),
                    .y = values_ + std::int64_t{begin} * heads_ * c.v_head_dim,
                    .ldy = heads_ * c.v_head_dim,
                    .y_step = c.v_head_dim,
                    .rows = end - begin,
                    .batch = heads_});
  }
  for (const TokenRun& run : long_runs_) expanded_->run(step, run, kv, w, scale_, q_, values_);
  step.round_rows(values_, heads_ * c.v_head_dim, heads_ * c.v_head_dim, values_fp8_,
                  step.next(weights.output.part[0]));
  everyone_ = {0, step.tokens};
  kernels::RowParallelParams output{.h = values_,
                                    .ldh = heads_ * c.v_head_dim,
                                    .groups = &everyone_,
                                    .w = &weights.output,
                                    .group_count = 1,
                                    .h_fp8 = values_fp8_};
  step.adapted.row_parallel(layer, &AdapterLayer::output, output);
  if (step.attends_alone()) return step.add_product(output);
  step.add_row_parallel(output);
}

}  // namespace dsm::model
