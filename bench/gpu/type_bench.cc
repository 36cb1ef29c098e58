#include "bench/gpu/type_bench.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bench/gpu/device_clock.h"
#include "bench/gpu/noise.h"
#include "bench/gpu/sequences.h"
#include "bench/gpu/work.h"
#include "worker/device/devices.h"
#include "worker/model/kv_layer.h"

namespace dsm::bench {
namespace {

using namespace kernels;  // parameter structs
using model::AttentionKind;
using model::ModelConfig;

std::size_t size(std::int64_t count) {
  return static_cast<std::size_t>(count);
}

// Bytes of a weight, with its scale for each output and 128 inputs.
double weight_bytes(DType dtype) {
  const double scale = 4.0 / kScaleBlock;
  return (dtype == DType::kInt4 ? 0.5 : 1.0) + scale;
}

// Sequences of one batch, all as long.
struct Rows {
  int sequences = 1;
  int tokens = 1;
  int start = 0;

  int count() const { return sequences * tokens; }
};

class TypeBench {
 public:
  TypeBench(std::string name, const ModelConfig& config, const KernelPlan& plan,
            const std::function<void(const Measurement&)>& emit)
      : name_(std::move(name)),
        c_(config),
        plan_(plan),
        emit_(emit),
        backend_(make({})),
        by_library_(make({.many_rows = device::ManyRows::kLibrary})),
        with_all_(make(device::all_kernels())) {
    const int most = std::max(*std::ranges::max_element(plan.decode_rows), plan.prompt);
    const int head = std::max(c_.qk_head_dim(), c_.kv_lora_rank + c_.qk_rope_head_dim);
    const std::int64_t widest =
        round_up(std::max({c_.hidden_size, c_.intermediate_size, c_.num_heads * head}), 128);
    x_ = noise_.floats(most * widest);
    y_ = noise_.floats(most * 2 * widest);
    if (!backend_->takes_fp8()) return;
    x_fp8_ = {device::allocate<std::uint8_t>(*backend_, size(most * widest)),
              device::allocate<float>(*backend_, size(most * widest / kScaleBlock)), widest};
    backend_->quantise({.x = x_,
                        .ldx = widest,
                        .y = x_,
                        .ldy = widest,
                        .rows = most,
                        .width = static_cast<int>(widest),
                        .y_fp8 = x_fp8_});
  }

  void run() {
    for (const auto& [type, dtype] :
         {std::pair{"FP8", DType::kF8E4M3}, {"INT8", DType::kInt8}, {"INT4", DType::kInt4}}) {
      product("output", c_.hidden_size, c_.num_heads * c_.v_head_dim, type, dtype);
      product("gate and up", 2 * c_.intermediate_size, c_.hidden_size, type, dtype);
      product("down", c_.hidden_size, c_.intermediate_size, type, dtype);
    }
    attention("BF16", DType::kBF16);
    attention("FP8", DType::kF8E4M3);
  }

 private:
  std::unique_ptr<device::Backend> make(const device::KernelChoice& kernels) const {
    return device::make_backend({.device = device::Device::kCuda,
                                 .threads = plan_.threads,
                                 .exact = false,
                                 .kernels = kernels});
  }

  std::vector<Rows> all_rows() const {
    std::vector<Rows> all;
    for (const int rows : plan_.decode_rows) all.push_back({rows, 1, plan_.context});
    all.push_back({1, plan_.prompt, 0});
    return all;
  }

  void measure(const std::string& name, int rows, const Work& work,
               const std::function<void()>& run) {
    measure(*backend_, name, rows, work, run);
  }
  void measure(device::Backend& on, const std::string& name, int rows, const Work& work,
               const std::function<void()>& run) {
    emit_({.device = std::string(on.name()),
           .model = name_,
           .name = name,
           .rows = rows,
           .seconds = device_seconds(on, plan_.repeats, plan_.flush_bytes, run),
           .work = work});
  }

  void product(const std::string& name, int n, int k, const std::string& type, DType dtype) {
    const PackedMatrix w = noise_.matrix(n, k, dtype);
    const bool fp8 = dtype == DType::kF8E4M3;
    for (const Rows& rows : all_rows()) {
      const bool many = rows.count() > kFewRows;
      Work work = product_work(rows.count(), n, k, weight_bytes(dtype));
      LinearParams linear = {.x = x_, .ldx = k, .w = &w, .y = y_, .ldy = n, .rows = rows.count()};
      const auto run = [&](device::Backend& on, const std::string& how) {
        measure(on, name + " (" + how + ")", rows.count(), work, [&] { on.linear(linear); });
      };
      run(*backend_, type);
      // Beside each other: weights in FP8 alone are not the kernel's yet.
      if (many && fp8) run(*with_all_, type + ", by many rows' kernel");
      if (many && !fp8) run(*by_library_, type + ", without many rows' kernel");
      if (!fp8 || x_fp8_.values == nullptr) continue;
      linear.x_fp8 = x_fp8_;
      work.fp8_flops = std::exchange(work.flops, 0);
      run(*backend_, "FP8 by FP8");
      if (many) run(*by_library_, "FP8 by FP8, without many rows' kernel");
      if (many) run(*with_all_, "FP8 by FP8, by pairs of blocks");
    }
  }

  KvLayer cache(DType dtype, int blocks) {
    const model::KvSpec spec = {.num_blocks = blocks, .dtype = dtype};
    const bool grouped = c_.attention == AttentionKind::kGrouped;
    const KvLayer kv =
        grouped ? model::make_grouped_cache(*backend_, spec, c_.num_kv_heads, c_.v_head_dim)
                : model::make_latent_cache(*backend_, spec, c_.kv_lora_rank, c_.qk_rope_head_dim);
    const std::int64_t pieces = std::int64_t{blocks} * kv.heads;
    noise_.fill(kv.keys, pieces * key_block_bytes(kv));
    if (kv.values != kv.keys) noise_.fill(kv.values, pieces * value_block_bytes(kv));
    return kv;
  }

  void attention(const std::string& type, DType dtype) {
    const int row_blocks = std::max(plan_.context, plan_.prompt - 1) / kKvBlock + 1;
    const int sequences = *std::ranges::max_element(plan_.decode_rows);
    const KvLayer kv = cache(dtype, sequences * row_blocks);
    const int heads = c_.num_heads / kv.heads;
    for (const Rows& rows : all_rows()) {
      const Sequences step =
          make_sequences(rows.sequences, rows.tokens, rows.start, row_blocks, kv.heads, heads);
      const Work work =
          attention_work(c_, rows.sequences, rows.tokens, rows.start, bytes_of(dtype));
      measure("attention (" + type + " cache)", rows.count(), work, [&] {
        backend_->attention({x_, y_, step.places.data(), step.items.data(),
                             static_cast<int>(step.items.size()), heads, kv, 0.1F});
      });
    }
  }

  // Of a product that has no kernel of its own (product_wide_fp8.h).
  static constexpr int kFewRows = 16;

  std::string name_;
  const ModelConfig& c_;
  const KernelPlan& plan_;
  const std::function<void(const Measurement&)>& emit_;
  std::unique_ptr<device::Backend> backend_;
  // On the same memory.
  std::unique_ptr<device::Backend> by_library_;
  std::unique_ptr<device::Backend> with_all_;
  Noise noise_{*backend_};
  // Inputs and outputs of all operators.
  float* x_ = nullptr;
  float* y_ = nullptr;
  Fp8Rows x_fp8_;  // the inputs; none where the device does not multiply them
};

}  // namespace

Status measure_types(const ModelShape& shape, const KernelPlan& plan,
                     const std::function<void(const Measurement&)>& emit) {
  const auto config = model::parse_model_config(shape.config, shape.name);
  if (!config) return std::unexpected(config.error());
  TypeBench(shape.name, *config, plan, emit).run();
  return {};
}

}  // namespace dsm::bench
