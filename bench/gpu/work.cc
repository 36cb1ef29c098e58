#include "bench/gpu/work.h"

#include <cmath>

namespace dsm::bench {
namespace {

using model::AttentionKind;
using model::ModelConfig;

constexpr double kWeightBytes = 2;
constexpr double kCacheBytes = 4;

double attention_weights(const ModelConfig& c) {
  const double hidden = c.hidden_size;
  const double heads = c.num_heads;
  const double out = heads * c.v_head_dim * hidden;
  if (c.attention == AttentionKind::kGrouped) {
    return hidden * (heads + 2.0 * c.num_kv_heads) * c.v_head_dim + out;
  }
  return hidden * heads * c.qk_head_dim() + hidden * (c.kv_lora_rank + c.qk_rope_head_dim) +
         heads * (c.qk_nope_head_dim + c.v_head_dim) * c.kv_lora_rank + out;
}

double mlp_weights(const ModelConfig& c, double width) {
  return 3.0 * c.hidden_size * width;
}

// Values of the cache for one position.
double cache_values(const ModelConfig& c) {
  return c.attention == AttentionKind::kGrouped ? 2.0 * c.num_kv_heads * c.v_head_dim
                                                : 2.0 * c.kv_lora_rank + c.qk_rope_head_dim;
}

// Multiply-adds of a token for each position that it sees.
double attention_products(const ModelConfig& c) {
  return c.attention == AttentionKind::kGrouped
             ? 2.0 * c.num_heads * c.v_head_dim
             : c.num_heads * (2.0 * c.kv_lora_rank + c.qk_rope_head_dim);
}

void add_weights(double read, double used, double tokens, Work& work) {
  work.bytes += read * kWeightBytes;
  work.flops += 2 * used * tokens;
}

}  // namespace

Work attention_work(const ModelConfig& c, int rows, int tokens, int start) {
  // Positions that all tokens of a row see together.
  const double seen = tokens * (start + (tokens + 1) / 2.0);
  return {rows * (start + double(tokens)) * cache_values(c) * kCacheBytes,
          2 * rows * seen * attention_products(c)};
}

Work step_work(const ModelConfig& c, int rows, int tokens, int start) {
  Work work;
  const double all = double(rows) * tokens;
  for (int i = 0; i < c.num_layers; ++i) {
    add_weights(attention_weights(c), attention_weights(c), all, work);
    if (c.has_experts(i)) {
      const double expert = mlp_weights(c, c.moe_intermediate_size);
      const double share = double(c.experts_per_token) / c.num_experts;
      const double different = c.num_experts * (1 - std::pow(1 - share, all));
      const double always =
          mlp_weights(c, c.shared_width()) + double(c.hidden_size) * c.num_experts;
      add_weights(always + different * expert, always + c.experts_per_token * expert, all, work);
    } else {
      const double mlp = mlp_weights(c, c.intermediate_size);
      add_weights(mlp, mlp, all, work);
    }
    const Work attention = attention_work(c, rows, tokens, start);
    work.bytes += attention.bytes;
    work.flops += attention.flops;
  }
  const double head = double(c.hidden_size) * c.vocab_size;
  add_weights(head, head, rows, work);
  return work;
}

Work product_work(int rows, int n, int k, double weight_bytes) {
  const double weights = double(n) * k;
  return {weights * weight_bytes + 4.0 * rows * (double(n) + k), 2 * weights * rows};
}

}  // namespace dsm::bench
