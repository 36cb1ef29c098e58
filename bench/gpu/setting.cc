#include "bench/gpu/setting.h"

#include "bench/gpu/device_clock.h"

namespace dsm::bench {

using namespace kernels;  // parameter structs

Setting::Setting(std::string model, const model::ModelConfig& of, const KernelPlan& by,
                 const Emit& to)
    : config(of), plan(by), backend(make({})), name_(std::move(model)), emit_(to) {
  const int head = std::max(of.qk_head_dim(), of.kv_lora_rank + of.qk_rope_head_dim);
  const int widest = std::max({of.hidden_size, of.intermediate_size, of.shared_width(),
                               of.num_heads * head, 2 * of.num_kv_heads * of.v_head_dim});
  const int most_slots = most_rows() * std::max(1, of.experts_per_token + 1);
  x = data(std::int64_t{most_slots} * round_up(widest, 32));
  y = data(std::max(std::int64_t{most_slots} * 2 * round_up(widest, 32),
                    std::int64_t{most_decode_rows()} * of.vocab_size));
  ones = data(std::max(widest, of.kv_lora_rank));
}

std::unique_ptr<device::Backend> Setting::make(const device::KernelChoice& kernels,
                                               bool exact) const {
  return device::make_backend({.device = device::Device::kCuda,
                               .threads = plan.threads,
                               .exact = exact,
                               .kernels = kernels});
}

void Setting::measure(device::Backend& on, const std::string& name, int rows, const Work& work,
                      const std::function<void()>& run) const {
  emit_({.device = std::string(on.name()),
         .model = name_,
         .name = name,
         .rows = rows,
         .seconds = device_seconds(on, plan.repeats, plan.flush_bytes, run),
         .work = work});
}

void Setting::linear(const std::string& name, const PackedMatrix& w, double weight_bytes,
                     int rows) const {
  const Work work = product_work(rows, w.n, w.k, weight_bytes);
  const auto run = [&, rows](device::Backend& by) {
    by.linear({.x = x, .ldx = w.k, .w = &w, .y = y, .ldy = w.n, .rows = rows});
  };
  if (w.dtype == DType::kBF16) {
    measure_product(name, rows, work, run);
  } else {
    measure(name, rows, work, [&] { run(*backend); });
  }
}

}  // namespace dsm::bench
