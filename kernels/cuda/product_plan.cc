#include "kernels/cuda/product_plan.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cuda/product_exact.h"
#include "kernels/cuda/product_wide.h"
#include "kernels/cuda/product_wide_fp8.h"
#include "kernels/cuda/splits.h"

namespace dsm::kernels::cuda {

namespace {

// Rows that are more than one tile of the kernels for few.
constexpr int kMoreThanFew = 17;

int most_rows(std::span<const ProductTask> tasks) {
  int rows = 0;
  for (const ProductTask& task : tasks) rows = std::max(rows, task.rows);
  return rows;
}

// All but the spans' place.
void plan_tiles(std::span<const ProductTask> tasks, int tile_rows, ProductPlan& plan) {
  plan.tiles.clear();
  plan.tile_rows = tile_rows;
  plan.panels = plan.spans = 0;
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    plan.panels = std::max(plan.panels, panels_of(tasks[i].w));
    plan.spans = std::max(plan.spans, spans_of(tasks[i].w));
    for (int row = 0; row < tasks[i].rows; row += tile_rows) {
      plan.tiles.push_back({static_cast<std::int32_t>(i), row});
    }
  }
}

// For pairs of thread blocks, if they are worth it.
bool plan_pairs(std::span<const ProductTask> tasks, int processors, ProductPlan& plan) {
  plan_tiles(tasks, kPairedRows, plan);
  plan.spans = plan.spans_each = 1;
  std::int64_t rows = 0;
  for (const ProductTask& task : tasks) rows += task.rows;
  return pairs_pay(rows, std::ssize(plan.tiles), plan.panels, processors);
}

}  // namespace

void plan_products(std::span<const ProductTask> tasks, DType dtype, int processors,
                   ProductPlan& plan) {
  const int rows = most_rows(tasks);
  int tile_rows = 16;
  while (tile_rows < rows && tile_rows < max_tile_rows(dtype)) tile_rows *= 2;
  plan_tiles(tasks, tile_rows, plan);
  plan.spans_each = spans_each(plan.spans, plan.tile_rows, static_cast<int>(plan.tiles.size()),
                               plan.panels, processors);
}

void plan_wide_products(std::span<const ProductTask> tasks, int processors, bool pairs,
                        ProductPlan& plan) {
  if (pairs && plan_pairs(tasks, processors, plan)) return;
  plan.spans_each = 1;
  plan_tiles(tasks, wide_tile_rows(most_rows(tasks)), plan);
  plan.spans = wide_parts(static_cast<int>(plan.tiles.size()), plan.panels, plan.spans, processors);
}

RowRange wide_kernel_rows(int major, DType dtype, int from) {
  if (major != 9 || from == 0) return {};
  const bool takes = dtype == DType::kBF16 || dtype == DType::kF8E4M3 || is_integer(dtype);
  if (!takes) return {};
  return {std::max(from, kMoreThanFew), std::numeric_limits<int>::max()};
}

void plan_exact_products(std::span<const ProductTask> tasks, int processors, ProductPlan& plan) {
  plan_tiles(tasks, kExactRows, plan);
  plan.spans_each =
      exact_spans_each(plan.spans, static_cast<int>(plan.tiles.size()), plan.panels, processors);
}

bool plan_wide_fp8_products(std::span<const ProductTask> tasks, int processors, bool pairs,
                            ProductPlan& plan) {
  static_assert(kPairedRows == kFp8HeldRows);
  if (pairs && plan_pairs(tasks, processors, plan)) return true;
  plan_tiles(tasks, wide_fp8_tile_rows(most_rows(tasks)), plan);
  plan.spans = wide_parts(static_cast<int>(plan.tiles.size()), plan.panels, plan.spans, processors,
                          kWideFp8Panels);
  plan.spans_each = 1;
  return false;
}

RowRange wide_fp8_rows(int major) {
  if (major != 9) return {};
  return {kMoreThanFew, std::numeric_limits<int>::max()};
}

int library_rows(int major, DType dtype) {
  // Of Llama-8B's down, microseconds for r rows: ours 20 + 1.4 r, the library's 225 + 0.2 r.
  if (major == 9 && dtype == DType::kF8E4M3) return 176;
  // Operations in BF16 that a GPU does in the time of one byte from memory: A100, H100, B200.
  const double peak = major < 9 ? 312.0 / 2.04 : major == 9 ? 989.0 / 3.35 : 2250.0 / 8.0;
  // Shares of the peak, as measured on an H100 (docs/benchmarks.md): ours at 64 rows, the library's
  // at 2,048 without the unpacking.
  constexpr double kOurs = 0.045;
  constexpr double kLibrarys = 0.5;
  // A row is two operations for each weight.
  constexpr double kUnpackedBytes = 4;  // BF16 read and written before it is read, or FP8 likewise
  return static_cast<int>(std::ceil(kUnpackedBytes * peak / (2 / kOurs - 2 / kLibrarys)));
}

void library_parts(const ProductTask& task, std::int64_t bytes, std::vector<ProductPart>& parts) {
  const auto most = [&](std::int64_t each, int count) {
    return static_cast<int>(std::clamp<std::int64_t>(bytes / each, 1, count));
  };
  const int all = panels_of(task.w);
  const std::int64_t inputs = round_up(task.w.k, kUnpackInputs);
  const int panels = most(inputs * kPanel * 2, all);
  const int rows = most(std::int64_t{panels} * kPanel * 4, task.rows);
  parts.clear();
  for (int panel = 0; panel < all; panel += panels) {
    for (int row = 0; row < task.rows; row += rows) {
      parts.push_back({row, std::min(rows, task.rows - row), panel, std::min(panels, all - panel)});
    }
  }
}

void take_part(const ProductPart& part, Products& launch, ProductTask& task) {
  const std::int64_t column = std::int64_t{part.panel} * kPanel;
  const std::int64_t row = part.row;
  // With SwiGLU a panel gives half as many outputs.
  const std::int64_t output = row * launch.ldy + (launch.swiglu ? column / 2 : column);
  task.w.data = static_cast<const std::byte*>(task.w.data) + column * column_bytes(task.w);
  if (task.w.scales != nullptr) task.w.scales += column * splits_of(task.w);
  task.w.n = static_cast<int>(
      std::min<std::int64_t>(task.w.n - column, std::int64_t{part.panels} * kPanel));
  if (launch.token == nullptr) {
    task.x += row * launch.ldx;
  } else {
    launch.token += task.first_row + row;
  }
  task.y += output;
  if (task.start != nullptr) task.start += row * launch.lds + column;
  if (launch.bias != nullptr) launch.bias += column;
  if (launch.residual != nullptr) launch.residual += output;
  if (launch.weight != nullptr) launch.weight += task.first_row + row;
  task.first_row = 0;
  task.rows = part.rows;
  launch.rows = part.rows;
}

bool fp8_rows(const ProductTask& task) {
  return task.w.dtype == DType::kF8E4M3 && task.w.scale_phase == 0 && task.x_fp8.values != nullptr;
}

bool wide_rows(std::span<const ProductTask> tasks, std::int64_t ldx) {
  return ldx % 4 == 0 && std::ranges::all_of(tasks, [](const ProductTask& task) {
           return reinterpret_cast<std::uintptr_t>(task.x) % 16 == 0 && task.w.scale_phase % 4 == 0;
         });
}

void slots_of_tokens(std::span<const SlotList> lists, int tokens, TokenSlots& out) {
  const auto for_each_slot = [&](const auto& visit) {
    for (const SlotList& list : lists) {
      for (const Group& group : list.groups) {
        for (int s = group.begin; s < group.end; ++s) {
          visit(static_cast<std::size_t>(list.token[s]), list.first_slot + s);
        }
      }
    }
  };
  out.first.assign(static_cast<std::size_t>(tokens) + 1, 0);
  for_each_slot([&](std::size_t token, int) { ++out.first[token + 1]; });
  for (std::size_t t = 1; t < out.first.size(); ++t) out.first[t] += out.first[t - 1];
  out.slots.resize(static_cast<std::size_t>(out.first.back()));
  // first[t] moves to the end of t's slots, and back by one place at the end.
  for_each_slot([&](std::size_t token, int slot) {
    out.slots[static_cast<std::size_t>(out.first[token]++)] = slot;
  });
  std::shift_right(out.first.begin(), out.first.end(), 1);
  out.first.front() = 0;
}

}  // namespace dsm::kernels::cuda
