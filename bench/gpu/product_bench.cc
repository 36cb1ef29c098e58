#include "bench/gpu/product_bench.h"

namespace dsm::bench {

using namespace kernels;  // parameter structs
using model::AttentionKind;

ProductBench::ProductBench(Setting& on) : on_(on) {
  const model::ModelConfig& c = on.config;
  const int heads = c.num_heads;
  if (c.attention == AttentionKind::kGrouped) {
    add("qkv", (heads + 2 * c.num_kv_heads) * c.v_head_dim, c.hidden_size);
  } else {
    add("q", heads * c.qk_head_dim(), c.hidden_size);
    add("kv_a", c.kv_lora_rank + c.qk_rope_head_dim, c.hidden_size);
  }
  if (c.attention == AttentionKind::kLatent) {
    for (int h = 0; h < heads; ++h) {
      to_latents_.push_back(on.matrix(c.kv_lora_rank, c.qk_nope_head_dim, DType::kBF16));
      to_values_.push_back(on.matrix(c.v_head_dim, c.kv_lora_rank, DType::kBF16));
    }
  }
  add("output", c.hidden_size, heads * c.v_head_dim);
  add("down", c.hidden_size, c.intermediate_size);
  add("down", c.hidden_size, c.intermediate_size, DType::kF8E4M3);
  gate_up_ = on.matrix(2 * static_cast<int>(round_up(c.intermediate_size, 32)), c.hidden_size,
                       DType::kBF16);
  head_ = on.matrix(c.vocab_size, c.hidden_size, DType::kBF16);
}

void ProductBench::add(const std::string& name, int n, int k, DType dtype) {
  const bool fp8 = dtype == DType::kF8E4M3;
  products_.push_back(
      {name + (fp8 ? " (FP8)" : ""), on_.matrix(n, k, dtype), fp8 ? 1 + 4.0 / kScaleBlock : 2});
}

void ProductBench::layer(int rows) {
  for (const Product& product : products_) {
    on_.linear(product.name, product.w, product.weight_bytes, rows);
  }
  dense_gate_up(rows);
}

void ProductBench::latents(int rows) {
  const model::ModelConfig& c = on_.config;
  if (c.attention != AttentionKind::kLatent) return;
  heads_linear("queries to latents", to_latents_, c.qk_head_dim(),
               c.kv_lora_rank + c.qk_rope_head_dim, rows);
  heads_linear("latents to values", to_values_, c.kv_lora_rank, c.v_head_dim, rows);
}

// A product for each head, with so many inputs and outputs from one head to the next.
void ProductBench::heads_linear(const std::string& name, const std::vector<PackedMatrix>& w,
                                int x_step, int y_step, int rows) {
  const int heads = static_cast<int>(w.size());
  const Work one = product_work(rows, w[0].n, w[0].k, 2);
  on_.measure(name, rows, {heads * one.bytes, heads * one.flops}, [&] {
    on_.backend->linear({.x = on_.x,
                         .ldx = std::int64_t{heads} * x_step,
                         .x_step = x_step,
                         .w = w.data(),
                         .y = on_.y,
                         .ldy = std::int64_t{heads} * y_step,
                         .y_step = y_step,
                         .rows = rows,
                         .batch = heads});
  });
}

void ProductBench::dense_gate_up(int rows) {
  const int width = gate_up_.n / 2;
  const Group everyone{0, rows};
  std::vector<std::int32_t> token(size(rows));
  for (int t = 0; t < rows; ++t) token[size(t)] = t;
  const std::vector<float> ones(size(rows), 1.0F);
  const Work work = product_work(rows, gate_up_.n, gate_up_.k, 2);
  on_.measure_product("gate, up and SwiGLU", rows, work, [&](device::Backend& backend) {
    backend.gate_up({.x = on_.x,
                     .ldx = on_.config.hidden_size,
                     .token = token.data(),
                     .weight = ones.data(),
                     .groups = &everyone,
                     .w = &gate_up_,
                     .group_count = 1,
                     .h = on_.y,
                     .ldh = width});
  });
}

}  // namespace dsm::bench
