#include "bench/gpu/cache_bench.h"

#include <algorithm>

#include "bench/gpu/sequences.h"

namespace dsm::bench {

using namespace kernels;  // parameter structs
using model::AttentionKind;

CacheBench::CacheBench(Setting& on) : on_(on) {
  const model::ModelConfig& c = on.config;
  const int positions = std::max(on.plan.context + 1, on.plan.prompt);
  rope_ = {on.data(std::int64_t{positions} * c.qk_rope_head_dim),
           on.data(std::int64_t{positions} * c.qk_rope_head_dim), c.qk_rope_head_dim / 2,
           c.rope.halves};
  const bool grouped = c.attention == AttentionKind::kGrouped;
  kv_.heads = grouped ? c.num_kv_heads : 1;
  kv_.key_dim = grouped ? c.v_head_dim : c.kv_lora_rank + c.qk_rope_head_dim;
  kv_.value_dim = grouped ? c.v_head_dim : c.kv_lora_rank;
  row_blocks_ = (positions + kKvBlock - 1) / kKvBlock;
  const std::int64_t slots = std::int64_t{on.most_decode_rows()} * row_blocks_ * kKvBlock;
  kv_.keys = on.data(slots * kv_.heads * kv_.key_dim);
  kv_.values = on.data(slots * kv_.heads * kv_.value_dim);
}

void CacheBench::run(int sequences, int tokens, int start) {
  const int rows = sequences * tokens;
  const int heads = on_.config.num_heads / kv_.heads;
  const Sequences step = make_sequences(sequences, tokens, start, row_blocks_, kv_.heads, heads);
  const double written = 4.0 * rows * kv_.heads * (kv_.key_dim + kv_.value_dim);
  const bool grouped = on_.config.attention == AttentionKind::kGrouped;
  on_.measure("keys and values", rows, {2 * written, 0}, [&] {
    const std::int64_t ld = std::int64_t{kv_.heads} * (kv_.key_dim + kv_.value_dim);
    if (grouped) {
      const float* v = on_.x + std::int64_t{kv_.heads} * kv_.key_dim;
      on_.backend->kv_write_heads({on_.x, v, ld, step.places.data(), kv_, rope_, rows});
    } else {
      on_.backend->kv_write(
          {on_.x, kv_.key_dim, on_.ones, step.places.data(), kv_, rope_, rows, 1e-6F});
    }
  });
  const int rotated = on_.config.qk_rope_head_dim;
  on_.measure("rope of queries", rows, {8.0 * rows * on_.config.num_heads * rotated, 0}, [&] {
    on_.backend->rope_query({on_.x, std::int64_t{on_.config.num_heads} * rotated, rotated, 0, on_.y,
                             rotated, 0, step.places.data(), rope_, rows, on_.config.num_heads});
  });
  const Work work = attention_work(on_.config, sequences, tokens, start, 4);
  const auto attend = [&](device::Backend& by) {
    by.attention({on_.x, on_.y, step.places.data(), step.items.data(),
                  static_cast<int>(step.items.size()), heads, kv_, 0.1F});
  };
  if (grouped) return on_.measure_attention("attention", rows, tokens, work, attend);
  on_.measure("attention", rows, work, [&] { attend(*on_.backend); });
  if (tokens > 1) run_expanded(sequences, tokens, start);
}

// Latents as keys and values of heads, which long prompts make of them.
void CacheBench::run_expanded(int sequences, int tokens, int start) {
  const model::ModelConfig& c = on_.config;
  KvLayer kv = {.heads = c.num_heads, .key_dim = c.qk_head_dim(), .value_dim = c.v_head_dim};
  const std::int64_t slots = std::int64_t{sequences} * row_blocks_ * kKvBlock * kv.heads;
  kv.keys = on_.data(slots * kv.key_dim);
  kv.values = on_.data(slots * kv.value_dim);
  const int rows = sequences * tokens;
  const Sequences step = make_sequences(sequences, tokens, start, row_blocks_, kv.heads, 1);
  const double seen = double(rows) * (start + (tokens + 1) / 2.0);
  const double width = double(kv.heads) * (kv.key_dim + kv.value_dim);
  const Work work = {4.0 * sequences * (start + tokens) * width, 2 * seen * width};
  on_.measure_attention("attention of expanded heads", rows, tokens, work,
                        [&](device::Backend& by) {
                          by.attention({on_.x, on_.y, step.places.data(), step.items.data(),
                                        static_cast<int>(step.items.size()), 1, kv, 0.1F});
                        });
}

}  // namespace dsm::bench
