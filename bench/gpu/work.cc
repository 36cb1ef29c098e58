#include "bench/gpu/work.h"

#include <cmath>

namespace dsm::bench {
namespace {

using model::AttentionKind;
using model::ModelConfig;

constexpr double kBf16Bytes = 2;
// With a scale for each output and 128 inputs.
constexpr double kFp8Bytes = 1 + 4.0 / 128;

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

void add_weights(double read, double used, double tokens, bool fp8, Work& work) {
  work.bytes += read * (fp8 ? kFp8Bytes : kBf16Bytes);
  (fp8 ? work.fp8_flops : work.flops) += 2 * used * tokens;
}

}  // namespace

Work attention_work(const ModelConfig& c, int rows, int tokens, int start, double cache_bytes) {
  // Positions that all tokens of a row see together.
  const double seen = tokens * (start + (tokens + 1) / 2.0);
  return {rows * (start + double(tokens)) * cache_values(c) * cache_bytes,
          2 * rows * seen * attention_products(c)};
}

Work step_work(const ModelConfig& c, int rows, int tokens, int start, const Storage& kept) {
  Work work;
  const double all = double(rows) * tokens;
  for (int i = 0; i < c.num_layers; ++i) {
    add_weights(attention_weights(c), attention_weights(c), all, kept.fp8, work);
    if (c.has_experts(i)) {
      const double expert = mlp_weights(c, c.moe_intermediate_size);
      const double share = double(c.experts_per_token) / c.num_experts;
      const double different = c.num_experts * (1 - std::pow(1 - share, all));
      const double shared = mlp_weights(c, c.shared_width());
      add_weights(shared + different * expert, shared + c.experts_per_token * expert, all, kept.fp8,
                  work);
      const double router = double(c.hidden_size) * c.num_experts;
      add_weights(router, router, all, false, work);
    } else {
      const double mlp = mlp_weights(c, c.intermediate_size);
      add_weights(mlp, mlp, all, kept.fp8, work);
    }
    work += attention_work(c, rows, tokens, start, kept.cache_bytes);
  }
  const double head = double(c.hidden_size) * c.vocab_size;
  add_weights(head, head, rows, false, work);
  return work;
}

Work product_work(int rows, int n, int k, double weight_bytes) {
  const double weights = double(n) * k;
  return {weights * weight_bytes + 4.0 * rows * (double(n) + k), 2 * weights * rows};
}

}  // namespace dsm::bench
