// What operators of a model are measured on: its backends, inputs and outputs for all of them, and
// where measurements go.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "bench/gpu/kernel_bench.h"
#include "bench/gpu/noise.h"
#include "bench/gpu/work.h"
#include "worker/device/devices.h"

namespace dsm::bench {

inline std::size_t size(std::int64_t count) {
  return static_cast<std::size_t>(count);
}

class Setting {
 public:
  using Emit = std::function<void(const Measurement&)>;

  // All but the name outlives it.
  Setting(std::string model, const model::ModelConfig& of, const KernelPlan& by, const Emit& to);

  float* data(std::int64_t count) { return noise_.floats(count); }
  kernels::PackedMatrix matrix(int n, int k, kernels::DType dtype) {
    return noise_.matrix(n, k, dtype);
  }
  int most_decode_rows() const { return *std::ranges::max_element(plan.decode_rows); }
  int most_rows() const { return std::max(most_decode_rows(), plan.prompt); }

  void measure(const std::string& name, int rows, const Work& work,
               const std::function<void()>& run) const {
    measure(*backend, name, rows, work, run);
  }
  // A product, and where many rows have ways of their own, also by each of them, and in the
  // deterministic mode by both of its kernels. `other`: by what, where a library is asked for.
  template <class Run>
  void measure_product(const std::string& name, int rows, const Work& work, const Run& run,
                       const char* other = ", library") const {
    measure(name, rows, work, [&] { run(*backend); });
    if (rows <= kFewRows) return;
    for (const auto& [way, by] :
         {std::pair{", many rows' kernel", &by_kernel_}, std::pair{other, &by_library_},
          std::pair{", deterministic", &exact_},
          std::pair{", deterministic, many rows' kernel", &wide_exact_}}) {
      measure(**by, name + way, rows, work, [&] { run(**by); });
    }
  }
  // Attention, and of a prompt also by the kernel that multiplies by warps.
  template <class Run>
  void measure_attention(const std::string& name, int rows, int tokens, const Work& work,
                         const Run& run) const {
    measure(name, rows, work, [&] { run(*backend); });
    if (tokens > 1)
      measure(*by_library_, name + ", by warps", rows, work, [&] { run(*by_library_); });
  }
  // All of x by w.
  void linear(const std::string& name, const kernels::PackedMatrix& w, double weight_bytes,
              int rows) const;

  const model::ModelConfig& config;
  const KernelPlan& plan;
  const std::unique_ptr<device::Backend> backend;
  // Inputs and outputs of all operators.
  float* x = nullptr;
  float* y = nullptr;
  float* ones = nullptr;

 private:
  // Of a product that every kernel but one takes alike (product_wide.h).
  static constexpr int kFewRows = 16;

  std::unique_ptr<device::Backend> make(const device::KernelChoice& kernels,
                                        bool exact = false) const;
  void measure(device::Backend& on, const std::string& name, int rows, const Work& work,
               const std::function<void()>& run) const;

  const std::string name_;
  const Emit& emit_;
  // On the same memory.
  const std::unique_ptr<device::Backend> by_kernel_ =
      make({.many_rows = device::ManyRows::kKernel});
  const std::unique_ptr<device::Backend> by_library_ =
      make({.many_rows = device::ManyRows::kLibrary});
  const std::unique_ptr<device::Backend> exact_ = make({}, true);
  const std::unique_ptr<device::Backend> wide_exact_ = make({.wide_exact_from = 1}, true);
  Noise noise_{*backend};
};

}  // namespace dsm::bench
