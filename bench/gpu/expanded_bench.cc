#include "bench/gpu/expanded_bench.h"

#include <algorithm>
#include <numeric>
#include <vector>

namespace dsm::bench {

using namespace kernels;  // parameter structs

namespace {

// As ExpandedAttention has it (worker/model/expanded_attention.cc).
constexpr int kAtOnce = 1024;

}  // namespace

ExpandedBench::ExpandedBench(Setting& on) : on_(on) {
  const model::ModelConfig& c = on.config;
  if (c.attention != model::AttentionKind::kLatent) return;
  heads_ = c.num_heads;
  cache_ = {.key_dim = c.kv_lora_rank + c.qk_rope_head_dim, .value_dim = c.kv_lora_rank};
  kv_ = {.heads = heads_, .key_dim = c.qk_head_dim(), .value_dim = c.v_head_dim};
  const std::int64_t slots = round_up(on.plan.prompt, kKvBlock);
  for (KvLayer* kv : {&cache_, &kv_}) {
    kv->keys = on.data(slots * kv->heads * kv->key_dim);
    kv->values = on.data(slots * kv->heads * kv->value_dim);
  }
  const int width = heads_ * (c.qk_nope_head_dim + c.v_head_dim);
  w_ = on.matrix(width, c.kv_lora_rank, DType::kBF16);
  latents_ = on.data(std::int64_t{kAtOnce} * c.kv_lora_rank);
  rotated_ = on.data(std::int64_t{kAtOnce} * c.qk_rope_head_dim);
  expanded_ = on.data(std::int64_t{kAtOnce} * width);
}

void ExpandedBench::run(int tokens) {
  if (heads_ == 0) return;
  expand("expansion of latents", tokens, kAtOnce);
  expand("expansion of latents, 64 at a time", tokens, kKvBlock);
}

void ExpandedBench::expand(const std::string& name, int past, int at_once) {
  const model::ModelConfig& c = on_.config;
  std::vector<std::int32_t> table(size((past + kKvBlock - 1) / kKvBlock));
  std::iota(table.begin(), table.end(), 0);
  Work work = product_work(past, w_.n, w_.k, 2);
  // What the cache holds is read, and keys and values are written instead of the product.
  work.bytes += 4.0 * past * (c.qk_rope_head_dim + double(heads_) * c.qk_rope_head_dim);
  on_.measure(name, past, work, [&] {
    for (int begin = 0; begin < past; begin += at_once) {
      const int rows = std::min(at_once, past - begin);
      const std::int64_t slots = std::int64_t{begin} * heads_;
      on_.backend->latent_read({cache_, table.data() + begin / kKvBlock, rows, latents_, rotated_});
      on_.backend->linear({.x = latents_,
                           .ldx = cache_.value_dim,
                           .w = &w_,
                           .y = expanded_,
                           .ldy = w_.n,
                           .rows = rows});
      on_.backend->heads_expand({.x = expanded_,
                                 .rotated = rotated_,
                                 .keys = static_cast<float*>(kv_.keys) + slots * kv_.key_dim,
                                 .values = static_cast<float*>(kv_.values) + slots * kv_.value_dim,
                                 .rows = rows,
                                 .heads = heads_,
                                 .nope = c.qk_nope_head_dim,
                                 .rope = c.qk_rope_head_dim,
                                 .value = c.v_head_dim});
    }
  });
}

}  // namespace dsm::bench
