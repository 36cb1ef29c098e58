// Time of the packed product at decode (one row) and prefill (many rows) shapes, per instruction
// set, on one thread, which other programs do not lengthen:
//   build/release/kernels-bench [milliseconds per line]
// GB/s counts the weights once per call; GFLOP/s counts two per multiply-add.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cpu/bf16_ops.h"
#include "kernels/cpu/integer_ops.h"
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

// Seconds of this thread on a core, which other programs on the machine do not lengthen.
double thread_seconds() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

// A product whose weights mean nothing.
struct Product {
  Product(const Shape& shape, DType dtype) {
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
    packed.resize(packed_bytes(dtype, shape.n, shape.k) + 64);
    void* aligned = packed.data();
    std::size_t space = packed.size();
    w = pack({&piece, 1}, std::align(64, space - 64, aligned, space));
    x.assign(static_cast<std::size_t>(shape.rows) * static_cast<std::size_t>(shape.k), 0.01F);
    y.resize(static_cast<std::size_t>(shape.rows) * static_cast<std::size_t>(shape.n));
    params = {
        .x = x.data(), .ldx = shape.k, .w = &w, .y = y.data(), .ldy = shape.n, .rows = shape.rows};
  }
  Product(const Product&) = delete;

  std::vector<std::byte> packed;
  PackedMatrix w;
  std::vector<float> x;
  std::vector<float> y;
  LinearParams params;
};

void by_table(const Ops& ops, const Product& p) {
  for (int panel = 0; panel < panels_of(p.w); ++panel) {
    ops.linear(p.params, 0, 0, p.params.rows, panel);
  }
}

// With the rows' way to operands.
void by_bf16(const Bf16Ops& ops, const Product& p, std::uint16_t* memory) {
  const int rows = p.params.rows;
  const OperandRows operands{memory, steps_of(p.w.k)};
  ops.pack({.x = p.x.data(), .ldx = p.w.k, .rows = rows, .k = p.w.k, .to = operands}, 0,
           tiles_of(rows));
  const int panels = panels_of(p.w);
  for (int panel = 0; panel < panels; panel += kItemPanels) {
    for (int row = 0; row < rows; row += kItemRows) {
      ops.linear(p.params, 0, {operands.tile(row / kTileRows), operands.steps}, row,
                 std::min(rows, row + kItemRows), panel, std::min(panels, panel + kItemPanels));
    }
  }
}

// With the rows' way to integers.
void by_integers(const IntegerOps& ops, const Product& p, IntegerRows to) {
  const int rows = p.params.rows;
  ops.make({.x = p.x.data(), .ldx = p.w.k, .rows = rows, .matrix = &p.w, .to = to}, 0, rows);
  for (int panel = 0; panel < panels_of(p.w); panel += kItemPanels) {
    for (int row = 0; row < rows; row += kRowBlock) {
      for (int i = panel; i < std::min(panels_of(p.w), panel + kItemPanels); ++i) {
        ops.linear(p.params, 0, to, row, std::min(rows, row + kRowBlock), i);
      }
    }
  }
}

// The best of repeats within the budget, as a line of the table.
template <class Work>
void time(const char* name, const Shape& shape, DType dtype, double budget_s, const Work& work) {
  double best = 1e9;
  const auto end = Clock::now() + std::chrono::duration<double>(budget_s);
  do {
    const double begin = thread_seconds();
    work();
    best = std::min(best, thread_seconds() - begin);
  } while (Clock::now() < end);
  const double weights = 1.0 * shape.n * shape.k;
  std::printf("%-11s %-5s %6d %6d %6d %10.2f %9.1f %9.1f\n", name, name_of(dtype), shape.rows,
              shape.n, shape.k, best * 1e6, weights * bytes_each(dtype) / best / 1e9,
              2 * weights * shape.rows / best / 1e9);
}

}  // namespace

int main(int argc, char** argv) {
  const double budget_s = (argc > 1 ? std::atof(argv[1]) : 100.0) / 1000;
  std::printf("%-11s %-5s %6s %6s %6s %10s %9s %9s\n", "table", "type", "rows", "n", "k", "us",
              "GB/s", "GFLOP/s");
  for (const DType dtype :
       {DType::kInt4, DType::kInt8, DType::kF8E4M3, DType::kBF16, DType::kF32}) {
    // The default model's and a larger model's decode, then prefill.
    for (const Shape shape :
         {Shape{1, 512, 128}, Shape{1, 1536, 256}, Shape{1, 8192, 4096}, Shape{4, 8192, 4096},
          Shape{8, 8192, 4096}, Shape{16, 8192, 4096}, Shape{32, 1536, 256}, Shape{512, 1536, 256},
          Shape{512, 4096, 4096}}) {
      const Product product(shape, dtype);
      for (const Ops* ops : available_ops()) {
        if (ops == available_ops().front() && available_ops().size() > 1)
          continue;  // not meant to be fast
        time(ops->name, shape, dtype, budget_s, [&] { by_table(*ops, product); });
      }
      if (!takes_bf16_rows(dtype)) continue;
      const std::int64_t count = operands_of(tiles_of(shape.rows), steps_of(shape.k));
      std::vector<std::uint16_t> memory(static_cast<std::size_t>(count) + 32);
      void* aligned = memory.data();
      std::size_t space = memory.size() * 2;
      auto* const operands =
          static_cast<std::uint16_t*>(std::align(64, space - 64, aligned, space));
      if (const Bf16Ops* ops = bf16_ops()) {
        time(ops->name, shape, dtype, budget_s, [&] { by_bf16(*ops, product, operands); });
      }
      if (!is_integer(dtype)) continue;
      const int together = rows_together(shape.rows);
      const int pieces = pieces_of(product.w);
      std::vector<PieceFactor> factors(static_cast<std::size_t>(shape.rows * pieces));
      const auto bytes =
          static_cast<std::size_t>(round_up(shape.rows, together) * pieces) * kPieceBytes;
      std::vector<std::byte> numbers(bytes + 64);
      void* begin = numbers.data();
      space = numbers.size();
      const IntegerRows to{static_cast<std::byte*>(std::align(64, bytes, begin, space)),
                           factors.data(), pieces, together};
      for (const IntegerOps* ops : available_integer_ops().subspan(1)) {
        time((std::string("by ") + ops->name).c_str(), shape, dtype, budget_s,
             [&] { by_integers(*ops, product, to); });
      }
    }
  }
  return 0;
}
