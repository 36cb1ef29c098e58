#include "kernels/cuda/product_plan.h"

#include <algorithm>

#include "kernels/cuda/splits.h"

namespace dsm::kernels::cuda {

void plan_products(std::span<const ProductTask> tasks, DType dtype, int processors,
                   ProductPlan& plan) {
  plan.tiles.clear();
  plan.panels = plan.spans = 0;
  int rows = 0;
  for (const ProductTask& task : tasks) {
    rows = std::max(rows, task.rows);
    plan.panels = std::max(plan.panels, panels_of(task.w));
    plan.spans = std::max(plan.spans, spans_of(task.w));
  }
  plan.tile_rows = 16;
  while (plan.tile_rows < rows && plan.tile_rows < max_tile_rows(dtype)) plan.tile_rows *= 2;
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    for (int row = 0; row < tasks[i].rows; row += plan.tile_rows) {
      plan.tiles.push_back({static_cast<std::int32_t>(i), row});
    }
  }
  const auto blocks = static_cast<std::int64_t>(plan.tiles.size()) * plan.panels;
  // Each processor has two blocks at a time. A block that goes through all spans of a long matrix
  // takes long, so the last ones leave much of the device idle unless there are many; against that
  // stands the writing and reading of the partial sums, which of up to 16 rows are few.
  const int enough = plan.tile_rows == 16 ? 8 : 2;
  plan.spans_apart = plan.spans > 1 && blocks < std::int64_t{enough} * processors;
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
