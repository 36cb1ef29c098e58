#include "bench/gpu/kernel_bench.h"

#include <algorithm>
#include <memory>
#include <random>
#include <utility>

#include "bench/gpu/device_clock.h"
#include "bench/gpu/noise.h"
#include "bench/gpu/sequences.h"
#include "bench/gpu/work.h"
#include "worker/device/devices.h"

namespace dsm::bench {
namespace {

using namespace kernels;  // parameter structs
using model::AttentionKind;
using model::ModelConfig;

std::size_t size(std::int64_t count) {
  return static_cast<std::size_t>(count);
}

// Of a product that every kernel but one takes alike (product_wide.h).
constexpr int kFewRows = 16;

class Bench {
 public:
  Bench(std::string name, const ModelConfig& config, const KernelPlan& plan,
        const std::function<void(const Measurement&)>& emit)
      : name_(std::move(name)),
        c_(config),
        plan_(plan),
        emit_(emit),
        backend_(make(device::ManyRows::kAuto)) {
    const int head = std::max(c_.qk_head_dim(), c_.kv_lora_rank + c_.qk_rope_head_dim);
    const int widest = std::max({c_.hidden_size, c_.intermediate_size, c_.shared_width(),
                                 c_.num_heads * head, 2 * c_.num_kv_heads * c_.v_head_dim});
    const int most_slots = most_rows() * std::max(1, c_.experts_per_token + 1);
    x_ = data(std::int64_t{most_slots} * round_up(widest, 32));
    y_ = data(std::max(std::int64_t{most_slots} * 2 * round_up(widest, 32),
                       std::int64_t{most_decode_rows()} * c_.vocab_size));
    ones_ = data(std::max(widest, c_.kv_lora_rank));
    positions_ = std::max(plan.context + 1, plan.prompt);
    rope_ = {data(std::int64_t{positions_} * c_.qk_rope_head_dim),
             data(std::int64_t{positions_} * c_.qk_rope_head_dim), c_.qk_rope_head_dim / 2,
             c_.rope.halves};
    make_cache();
  }

  void run() {
    weights();
    for (const int rows : plan_.decode_rows) step(rows, 1, plan_.context);
    step(1, plan_.prompt, 0);
  }

 private:
  std::unique_ptr<device::Backend> make(device::ManyRows many_rows) const {
    return device::make_backend({.device = device::Device::kCuda,
                                 .threads = plan_.threads,
                                 .exact = false,
                                 .many_rows = many_rows});
  }
  int most_decode_rows() const { return *std::ranges::max_element(plan_.decode_rows); }
  int most_rows() const { return std::max(most_decode_rows(), plan_.prompt); }

  float* data(std::int64_t count) { return noise_.floats(count); }
  PackedMatrix matrix(int n, int k, DType dtype) { return noise_.matrix(n, k, dtype); }

  void make_cache() {
    const bool grouped = c_.attention == AttentionKind::kGrouped;
    kv_.heads = grouped ? c_.num_kv_heads : 1;
    kv_.key_dim = grouped ? c_.v_head_dim : c_.kv_lora_rank + c_.qk_rope_head_dim;
    kv_.value_dim = grouped ? c_.v_head_dim : c_.kv_lora_rank;
    row_blocks_ = (positions_ + kKvBlock - 1) / kKvBlock;
    const std::int64_t slots = std::int64_t{most_decode_rows()} * row_blocks_ * kKvBlock;
    kv_.keys = data(slots * kv_.heads * kv_.key_dim);
    kv_.values = data(slots * kv_.heads * kv_.value_dim);
  }

  void measure(const std::string& name, int rows, const Work& work,
               const std::function<void()>& run) {
    measure(*backend_, name, rows, work, run);
  }
  void measure(device::Backend& backend, const std::string& name, int rows, const Work& work,
               const std::function<void()>& run) {
    emit_({.device = std::string(backend.name()),
           .model = name_,
           .name = name,
           .rows = rows,
           .seconds = device_seconds(backend, plan_.repeats, plan_.flush_bytes, run),
           .work = work});
  }

  // A product, and where many rows have ways of their own, also by each of them.
  template <class Run>
  void measure_product(const std::string& name, int rows, const Work& work, const Run& run) {
    measure(name, rows, work, [&] { run(*backend_); });
    if (rows <= kFewRows) return;
    for (const auto& [way, backend] :
         {std::pair{", many rows' kernel", &by_kernel_}, std::pair{", library", &by_library_}}) {
      measure(**backend, name + way, rows, work, [&] { run(**backend); });
    }
  }

  struct Product {
    std::string name;
    PackedMatrix w;
    double weight_bytes;
  };
  void add(const std::string& name, int n, int k, DType dtype = DType::kBF16) {
    const bool fp8 = dtype == DType::kF8E4M3;
    products_.push_back(
        {name + (fp8 ? " (FP8)" : ""), matrix(n, k, dtype), fp8 ? 1 + 4.0 / kScaleBlock : 2});
  }

  void weights() {
    const int heads = c_.num_heads;
    if (c_.attention == AttentionKind::kGrouped) {
      add("qkv", (heads + 2 * c_.num_kv_heads) * c_.v_head_dim, c_.hidden_size);
    } else {
      add("q", heads * c_.qk_head_dim(), c_.hidden_size);
      add("kv_a", c_.kv_lora_rank + c_.qk_rope_head_dim, c_.hidden_size);
    }
    if (c_.attention == AttentionKind::kLatent) {
      for (int h = 0; h < heads; ++h) {
        to_latents_.push_back(matrix(c_.kv_lora_rank, c_.qk_nope_head_dim, DType::kBF16));
        to_values_.push_back(matrix(c_.v_head_dim, c_.kv_lora_rank, DType::kBF16));
      }
    }
    add("output", c_.hidden_size, heads * c_.v_head_dim);
    add("down", c_.hidden_size, c_.intermediate_size);
    add("down", c_.hidden_size, c_.intermediate_size, DType::kF8E4M3);
    gate_up_ = matrix(2 * static_cast<int>(round_up(c_.intermediate_size, 32)), c_.hidden_size,
                      DType::kBF16);
    head_ = matrix(c_.vocab_size, c_.hidden_size, DType::kBF16);
    if (c_.num_experts == 0) return;
    router_ = matrix(c_.num_experts, c_.hidden_size, DType::kBF16);
    for (int e = 0; e <= c_.num_experts; ++e) {  // the first one: those that are shared
      const int width = e == 0 ? c_.shared_width() : c_.moe_intermediate_size;
      experts_up_.push_back(
          matrix(2 * static_cast<int>(round_up(width, 32)), c_.hidden_size, DType::kBF16));
      experts_down_.push_back({{matrix(c_.hidden_size, width, DType::kBF16)}, {}, 1});
    }
  }

  void linear(const std::string& name, const PackedMatrix& w, double weight_bytes, int rows) {
    const Work work = product_work(rows, w.n, w.k, weight_bytes);
    const auto run = [&, rows](device::Backend& backend) {
      backend.linear({.x = x_, .ldx = w.k, .w = &w, .y = y_, .ldy = w.n, .rows = rows});
    };
    if (w.dtype == DType::kBF16) {
      measure_product(name, rows, work, run);
    } else {
      measure(name, rows, work, [&] { run(*backend_); });
    }
  }

  // A product for each head, with so many inputs and outputs from one head to the next.
  void heads_linear(const std::string& name, const std::vector<PackedMatrix>& w, int x_step,
                    int y_step, int rows) {
    const int heads = static_cast<int>(w.size());
    const Work one = product_work(rows, w[0].n, w[0].k, 2);
    measure(name, rows, {heads * one.bytes, heads * one.flops}, [&] {
      backend_->linear({.x = x_,
                        .ldx = std::int64_t{heads} * x_step,
                        .x_step = x_step,
                        .w = w.data(),
                        .y = y_,
                        .ldy = std::int64_t{heads} * y_step,
                        .y_step = y_step,
                        .rows = rows,
                        .batch = heads});
    });
  }

  void step(int sequences, int tokens, int start) {
    const int rows = sequences * tokens;
    for (const Product& product : products_) {
      linear(product.name, product.w, product.weight_bytes, rows);
    }
    dense_gate_up(rows);
    if (tokens == 1) {
      linear("head", head_, 2, rows);
      choices(rows);
    }
    if (c_.attention == AttentionKind::kLatent) {
      heads_linear("queries to latents", to_latents_, c_.qk_head_dim(), kv_.key_dim, rows);
      heads_linear("latents to values", to_values_, c_.kv_lora_rank, c_.v_head_dim, rows);
    }
    if (c_.num_experts > 0) {
      mixture(rows);
      routed_mixture(rows);
      router(rows);
    }
    small_operators(rows);
    cache_operators(sequences, tokens, start);
  }

  // Of logits that are spread as a model's: few are likely.
  void choices(int rows) {
    std::mt19937 random(2);
    std::normal_distribution<float> normal(0.0F, 3.0F);
    std::vector<float> logits(size(std::int64_t{rows} * c_.vocab_size));
    for (float& logit : logits) logit = normal(random);
    backend_->write(y_, logits.data(), logits.size() * sizeof(float));
    auto* tokens = device::allocate_shared<std::int32_t>(*backend_, size(rows));
    const std::pair<const char*, Choice> kinds[] = {
        {"choice, highest", {.wanted = true}},
        {"choice, drawn", {.key = 1, .temperature = 0.6F, .wanted = true}},
        {"choice, drawn by top_p",
         {.key = 1, .temperature = 0.6F, .top_p = 0.95F, .wanted = true}}};
    for (const auto& [name, choice] : kinds) {
      const std::vector<Choice> of_rows(size(rows), choice);
      measure(name, rows, {4.0 * rows * c_.vocab_size, 0}, [&] {
        backend_->choose({.logits = y_,
                          .ld = c_.vocab_size,
                          .choices = of_rows.data(),
                          .rows = rows,
                          .vocab = c_.vocab_size,
                          .tokens = tokens});
      });
    }
  }

  void dense_gate_up(int rows) {
    const int width = gate_up_.n / 2;
    const Group everyone{0, rows};
    std::vector<std::int32_t> token(size(rows));
    for (int t = 0; t < rows; ++t) token[size(t)] = t;
    const std::vector<float> ones(size(rows), 1.0F);
    const Work work = product_work(rows, gate_up_.n, gate_up_.k, 2);
    measure_product("gate, up and SwiGLU", rows, work, [&](device::Backend& backend) {
      backend.gate_up({.x = x_,
                       .ldx = c_.hidden_size,
                       .token = token.data(),
                       .weight = ones.data(),
                       .groups = &everyone,
                       .w = &gate_up_,
                       .group_count = 1,
                       .h = y_,
                       .ldh = width});
    });
  }

  // The shared experts with all tokens, and of the others those that even choices give.
  void mixture(int rows) {
    std::vector<Group> groups = {{0, rows}};
    std::vector<std::int32_t> token(size(rows));
    for (int t = 0; t < rows; ++t) token[size(t)] = t;
    std::vector<PackedMatrix> up = {experts_up_[0]};
    std::vector<SegmentedMatrix> down = {experts_down_[0]};
    Work up_work = product_work(rows, up[0].n, up[0].k, 2);
    Work down_work = product_work(rows, c_.hidden_size, c_.shared_width(), 2);
    for (int e = 0; e < c_.num_experts; ++e) {
      const int begin = static_cast<int>(token.size());
      for (int t = 0; t < rows; ++t) {
        if ((e - choice(t, 0) + c_.num_experts) % c_.num_experts < c_.experts_per_token) {
          token.push_back(t);
        }
      }
      const int end = static_cast<int>(token.size());
      if (begin == end) continue;
      groups.push_back({begin, end});
      up.push_back(experts_up_[size(e + 1)]);
      down.push_back(experts_down_[size(e + 1)]);
      up_work += product_work(end - begin, up.back().n, up.back().k, 2);
      down_work += product_work(end - begin, c_.hidden_size, c_.moe_intermediate_size, 2);
    }
    const std::vector<float> ones(token.size(), 1.0F);
    const std::int64_t ldh = round_up(std::max(c_.shared_width(), c_.moe_intermediate_size), 32);
    const int count = static_cast<int>(groups.size());
    measure("experts: gate, up and SwiGLU", rows, up_work, [&] {
      backend_->gate_up({.x = x_,
                         .ldx = c_.hidden_size,
                         .token = token.data(),
                         .weight = ones.data(),
                         .groups = groups.data(),
                         .w = up.data(),
                         .group_count = count,
                         .h = y_,
                         .ldh = ldh});
    });
    measure("experts: down and sum", rows, down_work, [&] {
      backend_->row_parallel({.h = x_,
                              .ldh = ldh,
                              .token = token.data(),
                              .groups = groups.data(),
                              .w = down.data(),
                              .group_count = count,
                              .tokens = rows,
                              .y = y_,
                              .ldy = c_.hidden_size});
    });
  }

  // Choice i of token t.
  int choice(int t, int i) const { return (t * c_.experts_per_token + i) % c_.num_experts; }

  // The same, of groups that the device makes: as steps of decoding are computed.
  void routed_mixture(int rows) {
    const int top_k = c_.experts_per_token;
    const std::size_t slots = size(rows) * size(1 + top_k);
    std::vector<std::int32_t> chosen;
    std::vector<int> tokens_of(size(c_.num_experts));
    for (int t = 0; t < rows; ++t) {
      for (int i = 0; i < top_k; ++i) {
        chosen.push_back(choice(t, i));
        ++tokens_of[size(choice(t, i))];
      }
      std::sort(chosen.end() - top_k, chosen.end());
    }
    auto* choices = device::allocate<std::int32_t>(*backend_, chosen.size());
    backend_->write(choices, chosen.data(), chosen.size() * sizeof chosen[0]);
    const GroupExpertsParams routing = {
        .chosen = choices,
        .weights = x_,
        .tokens = rows,
        .experts = c_.num_experts,
        .top_k = top_k,
        .token = device::allocate<std::int32_t>(*backend_, slots),
        .weight = device::allocate<float>(*backend_, slots),
        .groups = device::allocate<Group>(*backend_, size(1 + c_.num_experts)),
        .slot = device::allocate<std::int32_t>(*backend_, slots)};
    measure("experts: groups on the device", rows, {16.0 * static_cast<double>(slots), 0},
            [&] { backend_->group_experts(routing); });
    Work up_work = product_work(rows, experts_up_[0].n, experts_up_[0].k, 2);
    Work down_work = product_work(rows, c_.hidden_size, c_.shared_width(), 2);
    for (std::size_t e = 0; e < tokens_of.size(); ++e) {
      if (tokens_of[e] == 0) continue;
      up_work += product_work(tokens_of[e], experts_up_[e + 1].n, c_.hidden_size, 2);
      down_work += product_work(tokens_of[e], c_.hidden_size, c_.moe_intermediate_size, 2);
    }
    const std::int64_t ldh = round_up(std::max(c_.shared_width(), c_.moe_intermediate_size), 32);
    const int count = 1 + c_.num_experts;
    measure("routed experts: gate, up and SwiGLU", rows, up_work, [&] {
      backend_->gate_up({.x = x_,
                         .ldx = c_.hidden_size,
                         .token = routing.token,
                         .weight = routing.weight,
                         .groups = routing.groups,
                         .w = experts_up_.data(),
                         .group_count = count,
                         .h = y_,
                         .ldh = ldh,
                         .routing = &routing});
    });
    measure("routed experts: down and sum", rows, down_work, [&] {
      backend_->row_parallel({.h = x_,
                              .ldh = ldh,
                              .token = routing.token,
                              .groups = routing.groups,
                              .w = experts_down_.data(),
                              .group_count = count,
                              .tokens = rows,
                              .y = y_,
                              .ldy = c_.hidden_size,
                              .routing = &routing});
    });
  }

  void router(int rows) {
    linear("router's logits", router_, 2, rows);
    auto* chosen = device::allocate_shared<std::int32_t>(*backend_, size(rows) * kMaxTopK);
    auto* weights = device::allocate_shared<float>(*backend_, size(rows) * kMaxTopK);
    const double bytes = rows * (4.0 * c_.num_experts + 8.0 * c_.experts_per_token);
    measure("router", rows, {bytes, 0}, [&] {
      backend_->router({.logits = x_,
                        .ld = c_.num_experts,
                        .rule = RouterRule::kSoftmax,
                        .tokens = rows,
                        .experts = c_.num_experts,
                        .groups = c_.num_groups,
                        .topk_groups = c_.topk_groups,
                        .top_k = c_.experts_per_token,
                        .scale = 1.0F,
                        .chosen = chosen,
                        .weights = weights});
    });
  }

  void small_operators(int rows) {
    const int width = c_.hidden_size;
    const double bytes = 8.0 * rows * width;
    measure("norm", rows, {bytes, 0}, [&] {
      backend_->rms_norm({.x = x_,
                          .ldx = width,
                          .weight = ones_,
                          .y = y_,
                          .ldy = width,
                          .rows = rows,
                          .width = width,
                          .eps = 1e-6F});
    });
    measure("rounding to FP8", rows, {bytes, 0}, [&] {
      backend_->quantise(
          {.x = x_, .ldx = width, .y = y_, .ldy = width, .rows = rows, .width = width});
    });
    const std::vector<std::int32_t> tokens(size(rows), 1);
    measure("embedding", rows, {6.0 * rows * width, 0},
            [&] { backend_->embedding({tokens.data(), x_, DType::kBF16, y_, rows, width}); });
  }

  void cache_operators(int sequences, int tokens, int start) {
    const int rows = sequences * tokens;
    const int heads = c_.num_heads / kv_.heads;
    const Sequences step = make_sequences(sequences, tokens, start, row_blocks_, kv_.heads, heads);
    const double written = 4.0 * rows * kv_.heads * (kv_.key_dim + kv_.value_dim);
    const bool grouped = c_.attention == AttentionKind::kGrouped;
    measure("keys and values", rows, {2 * written, 0}, [&] {
      const std::int64_t ld = std::int64_t{kv_.heads} * (kv_.key_dim + kv_.value_dim);
      if (grouped) {
        const float* v = x_ + std::int64_t{kv_.heads} * kv_.key_dim;
        backend_->kv_write_heads({x_, v, ld, step.places.data(), kv_, rope_, rows});
      } else {
        backend_->kv_write({x_, kv_.key_dim, ones_, step.places.data(), kv_, rope_, rows, 1e-6F});
      }
    });
    const int rotated = c_.qk_rope_head_dim;
    measure("rope of queries", rows, {8.0 * rows * c_.num_heads * rotated, 0}, [&] {
      backend_->rope_query({x_, std::int64_t{c_.num_heads} * rotated, rotated, 0, y_, rotated, 0,
                            step.places.data(), rope_, rows, c_.num_heads});
    });
    measure("attention", rows, attention_work(c_, sequences, tokens, start, 4), [&] {
      backend_->attention({x_, y_, step.places.data(), step.items.data(),
                           static_cast<int>(step.items.size()), heads, kv_, 0.1F});
    });
  }

  std::string name_;
  const ModelConfig& c_;
  const KernelPlan& plan_;
  const std::function<void(const Measurement&)>& emit_;
  std::unique_ptr<device::Backend> backend_;
  // On the same memory.
  std::unique_ptr<device::Backend> by_kernel_ = make(device::ManyRows::kKernel);
  std::unique_ptr<device::Backend> by_library_ = make(device::ManyRows::kLibrary);
  Noise noise_{*backend_};
  // Inputs and outputs of all operators.
  float* x_ = nullptr;
  float* y_ = nullptr;
  float* ones_ = nullptr;
  int positions_ = 0;
  RopeTable rope_;
  KvLayer kv_;
  int row_blocks_ = 0;  // of the cache, of one sequence
  std::vector<Product> products_;
  std::vector<PackedMatrix> to_latents_;  // of each head
  std::vector<PackedMatrix> to_values_;
  PackedMatrix gate_up_;
  PackedMatrix head_;
  PackedMatrix router_;
  std::vector<PackedMatrix> experts_up_;
  std::vector<SegmentedMatrix> experts_down_;
};

}  // namespace

Status measure_kernels(const ModelShape& shape, const KernelPlan& plan,
                       const std::function<void(const Measurement&)>& emit) {
  const auto config = model::parse_model_config(shape.config, shape.name);
  if (!config) return std::unexpected(config.error());
  Bench(shape.name, *config, plan, emit).run();
  return {};
}

}  // namespace dsm::bench
