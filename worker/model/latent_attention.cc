#include "worker/engine/batch.h"
#include "worker/model/attention.h"

namespace dsm::model {

using device::allocate;

namespace {
// Of the norms of the two latents: DeepSeek's code gives them this one whatever rms_norm_eps says.
constexpr float kLatentEps = 1e-6F;
}  // namespace

LatentAttention::LatentAttention(Step& step, int layers, int num_blocks)
    : heads_(share_of(step.c.num_heads, step.rank, step.ranks).size()),
      scale_(attention_scale(step.c)),
      items_(step, heads_, 1) {
  const ModelConfig& c = step.c;
  const auto latent = static_cast<std::size_t>(c.kv_lora_rank);
  const auto key = latent + static_cast<std::size_t>(c.qk_rope_head_dim);
  const auto slots = static_cast<std::size_t>(num_blocks) * engine::kBlockTokens;
  for (int i = 0; i < layers; ++i) {
    kv_.push_back({allocate<float>(step.backend, slots * key),
                   allocate<float>(step.backend, slots * latent), 1,
                   c.kv_lora_rank + c.qk_rope_head_dim, c.kv_lora_rank});
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
  if (c.indexer) indexer_.emplace(step, layers, num_blocks);
}

void LatentAttention::prepare(const Step& step) {
  items_.build(step);
  if (indexer_) indexer_->prepare(step);
}

void LatentAttention::run(Step& step, int layer, const LayerWeights& weights) {
  const ModelConfig& c = step.c;
  const LatentWeights& w = weights.latent;
  device::Backend& backend = step.backend;
  const kernels::KvLayer& kv = kv_[static_cast<std::size_t>(layer)];
  const int qk = c.qk_head_dim();
  const std::int64_t lda = w.latents.n;
  step.norm(weights.attention_norm);
  step.linear({.x = step.normed, .w = &w.latents, .y = latents_, .ldy = lda});
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
  step.linear({.x = q_input, .w = &w.q, .y = q_, .ldy = heads_ * qk});
  // Absorbed: the query goes to the latent's space, so keys are never expanded.
  backend.linear({.x = q_,
                  .ldx = heads_ * qk,
                  .x_step = qk,
                  .w = w.key_up.data(),
                  .y = query_,
                  .ldy = heads_ * kv.key_dim,
                  .y_step = kv.key_dim,
                  .rows = step.tokens,
                  .batch = heads_});
  backend.rope_query({q_, heads_ * qk, qk, c.qk_nope_head_dim, query_, kv.key_dim, kv.value_dim,
                      step.places, step.rope, step.tokens, heads_});
  backend.attention(
      {query_, mixed_, step.places, items_.data(), items_.count(), heads_, kv, scale_, selection});
  backend.linear({.x = mixed_,
                  .ldx = heads_ * kv.value_dim,
                  .x_step = kv.value_dim,
                  .w = w.value_up.data(),
                  .y = values_,
                  .ldy = heads_ * c.v_head_dim,
                  .y_step = c.v_head_dim,
                  .rows = step.tokens,
                  .batch = heads_});
  step.round_rows(values_, heads_ * c.v_head_dim, step.tokens, heads_ * c.v_head_dim, nullptr);
  everyone_ = {0, step.tokens};
  step.add_row_parallel({.h = values_,
                         .ldh = heads_ * c.v_head_dim,
                         .groups = &everyone_,
                         .w = &weights.output,
                         .group_count = 1});
}

}  // namespace dsm::model
