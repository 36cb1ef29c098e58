// Time of the packed product at decode (one row) and prefill (many rows) shapes, per instruction
// set, on one thread:
//   build/release/kernels-bench [milliseconds per line]
// GB/s counts the weights once per call; GFLOP/s counts two per multiply-add.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "kernels/cpu/pack.h"
#include "kernels/ops.h"

namespace {

using namespace dsm::kernels;
using Clock = std::chrono::steady_clock;

struct Shape {
  int rows;
  int n;
  int k;
};

const char* name_of(DType dtype) {
  if (dtype == DType::kF8E4M3) return "fp8";
  if (is_integer(dtype)) return dtype == DType::kInt8 ? "int8" : "int4";
  return dtype == DType::kBF16 ? "bf16" : "f32";
}

double bytes_each(DType dtype) {
  if (is_integer(dtype)) return 4.0 / inputs_per_word(dtype);
  return static_cast<double>(bytes_of(dtype));
}

// Seconds per call of the product, the best of repeats within the budget.
double time_product(const Ops& ops, const Shape& shape, DType dtype, double budget_s) {
  const auto size = static_cast<std::size_t>(shape.n) * static_cast<std::size_t>(shape.k);
  const DType stored = is_integer(dtype) ? DType::kBF16 : dtype;
  std::vector<std::byte> weights(size * bytes_of(stored));
  for (std::size_t i = 0; i < weights.size(); ++i)
    // As FP8 none is subnormal: real weights hardly ever are, and a processor may be slow with
    // them.
    weights[i] = static_cast<std::byte>(i % 2 == 1 ? 0x3c : (i * 37 & 0x3f) | 8);
  const std::vector<float> scales(
      static_cast<std::size_t>((shape.n / kScaleBlock + 1) * (shape.k / kScaleBlock + 1)), 0.01F);
  const BlockScales blocks{reinterpret_cast<const std::byte*>(scales.data()), DType::kF32,
                           kScaleBlock, kScaleBlock, shape.k};
  WeightPiece piece{weights.data(), stored, shape.k, 1, shape.n, shape.k, 0, blocks};
  if (is_integer(dtype)) piece.round_to = dtype;
  std::vector<std::byte> packed(packed_bytes(dtype, shape.n, shape.k) + 64);
  void* aligned = packed.data();
  std::size_t space = packed.size();
  const PackedMatrix w = pack({&piece, 1}, std::align(64, space - 64, aligned, space));
  std::vector<float> x(static_cast<std::size_t>(shape.rows) * static_cast<std::size_t>(shape.k),
                       0.01F);
  std::vector<float> y(static_cast<std::size_t>(shape.rows) * static_cast<std::size_t>(shape.n));
  const LinearParams params{
      .x = x.data(), .ldx = shape.k, .w = &w, .y = y.data(), .ldy = shape.n, .rows = shape.rows};
  double best = 1e9;
  const auto end = Clock::now() + std::chrono::duration<double>(budget_s);
  do {
    const auto begin = Clock::now();
    for (int panel = 0; panel < panels_of(w); ++panel) ops.linear(params, 0, 0, shape.rows, panel);
    best = std::min(best, std::chrono::duration<double>(Clock::now() - begin).count());
  } while (Clock::now() < end);
  return best;
}

}  // namespace

int main(int argc, char** argv) {
  const double budget_s = (argc > 1 ? std::atof(argv[1]) : 100.0) / 1000;
  std::printf("%-8s %-5s %6s %6s %6s %10s %9s %9s\n", "table", "type", "rows", "n", "k", "us",
              "GB/s", "GFLOP/s");
  for (const Ops* ops : available_ops()) {
    if (ops == available_ops().front() && available_ops().size() > 1)
      continue;  // not meant to be fast
    for (const DType dtype :
         {DType::kInt4, DType::kInt8, DType::kF8E4M3, DType::kBF16, DType::kF32}) {
      // The default model's and a larger model's decode, then prefill.
      for (const Shape shape :
           {Shape{1, 512, 128}, Shape{1, 1536, 256}, Shape{1, 8192, 4096}, Shape{32, 1536, 256},
            Shape{512, 1536, 256}, Shape{256, 4096, 2048}}) {
        const double seconds = time_product(*ops, shape, dtype, budget_s);
        const double weights = 1.0 * shape.n * shape.k;
        std::printf("%-8s %-5s %6d %6d %6d %10.2f %9.1f %9.1f\n", ops->name, name_of(dtype),
                    shape.rows, shape.n, shape.k, seconds * 1e6,
                    weights * bytes_each(dtype) / seconds / 1e9,
                    2 * weights * shape.rows / seconds / 1e9);
      }
    }
  }
  return 0;
}
