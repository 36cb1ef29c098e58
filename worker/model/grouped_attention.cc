#include "worker/model/attention.h"

namespace dsm::model {

using device::allocate;

GroupedAttention::GroupedAttention(Step& step, int layers, const KvSpec& kv)
    : heads_(share_of(step.c.num_heads, step.rank, step.ranks).size()),
      kv_heads_(kv_heads_of(step.c.num_kv_heads, step.rank, step.ranks).size()),
      scale_(attention_scale(step.c)),
      items_(step, heads_ / kv_heads_, kv_heads_) {
  const int dim = step.c.v_head_dim;
  const auto head = static_cast<std::size_t>(dim);
  const auto h = static_cast<std::size_t>(heads_);
  const auto kv_h = static_cast<std::size_t>(kv_heads_);
  const auto t = static_cast<std::size_t>(step.max_tokens);
  const auto floats = [&](std::size_t count) { return allocate<float>(step.backend, count); };
  for (int i = 0; i < layers; ++i) {
    kv_.push_back(make_grouped_cache(step.backend, kv, kv_heads_, dim));
  }
  qkv_ = floats(t * (h + 2 * kv_h) * head);
  query_ = floats(t * h * head);
  mixed_ = floats(t * h * head);
  mixed_fp8_ = step.fp8_rows(t, h * head);
}

void GroupedAttention::run(Step& step, int layer, const LayerWeights& weights) {
  const GroupedWeights& w = weights.grouped;
  device::Backend& backend = step.backend;
  const kernels::KvLayer& kv = kv_[static_cast<std::size_t>(layer)];
  const std::int64_t ld = w.qkv.n;
  const int q_width = heads_ * kv.key_dim;
  step.norm(weights.attention_norm, step.next(w.qkv));
  step.linear({.x = step.normed, .w = &w.qkv, .bias = w.bias, .y = qkv_, .ldy = ld});
  step.adapted.linear(layer, &AdapterLayer::qkv, step.normed, step.c.hidden_size, qkv_, ld);
  if (w.query_norm != nullptr) {
    backend.norm_heads({.x = qkv_,
                        .ldx = ld,
                        .query_weight = w.query_norm,
                        .key_weight = w.key_norm,
                        .tokens = step.tokens,
                        .queries = heads_,
                        .keys = kv_heads_,
                        .dim = kv.key_dim,
                        .eps = static_cast<float>(step.c.rms_eps)});
  }
  const float* k = qkv_ + q_width;
  const float* v = k + kv_heads_ * kv.key_dim;
  backend.kv_write_heads({k, v, ld, step.places, kv, step.rope, step.tokens});
  backend.rope_query({qkv_, ld, kv.key_dim, 0, query_, kv.key_dim, 0, step.places, step.rope,
                      step.tokens, heads_});
  const NextProducts after = step.next(weights.output.part[0]);
  backend.attention({query_,
                     mixed_,
                     step.places,
                     items_.data(),
                     items_.count(),
                     items_.heads(),
                     kv,
                     scale_,
                     {},
                     after.products,
                     after.taken});
  step.round_rows(mixed_, q_width, q_width, mixed_fp8_, after);
  everyone_ = {0, step.tokens};
  kernels::RowParallelParams output{.h = mixed_,
                                    .ldh = q_width,
                                    .groups = &everyone_,
                                    .w = &weights.output,
                                    .group_count = 1,
                                    .h_fp8 = mixed_fp8_};
  step.adapted.row_parallel(layer, &AdapterLayer::output, output);
  step.add_row_parallel(output);
}

}  // namespace dsm::model
