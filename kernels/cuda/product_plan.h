// How the products of a launch are laid out over thread blocks. It changes the time, never the
// bits.
#pragma once

#include <span>
#include <vector>

#include "kernels/cuda/launch.h"

namespace dsm::kernels::cuda {

struct ProductPlan {
  std::vector<ProductTile> tiles;
  int tile_rows = 0;
  int panels = 0;
  int spans = 0;
  int spans_each = 0;
};

// How many spans, one after the other, each thread block goes through. As many as there may be
// while three blocks for two processors are left, which ask for enough of the weights at a time:
// where one block ends its last sums and another begins, memory is idle. Fewer than all of them
// meet in memory, which costs time, too. With more rows, and one block for a processor at a time,
// the arithmetic has to be spread evenly.
constexpr int spans_each(int spans, int tile_rows, int tiles, int panels, int processors) {
  const std::int64_t blocks = std::int64_t{tiles} * panels;
  if (tile_rows > 16) return blocks < 2 * processors ? 1 : spans;
  const std::int64_t parts = (std::int64_t{processors} * 3 / 2 + blocks - 1) / blocks;
  return parts < spans ? static_cast<int>((spans + parts - 1) / parts) : 1;
}

// `processors`: of the device, each of which holds a block or two at a time. Reuses plan.tiles.
void plan_products(std::span<const ProductTask> tasks, DType dtype, int processors,
                   ProductPlan& plan);

// From how many rows on a library's product pays, whose kernels use more of the tensor cores, but
// which wants the weights unpacked first: 4 bytes more through memory for each weight. By the GPU's
// compute capability, of which `major` is the first number. Of weights in FP8 on 9.0, with rows in
// FP32 or in FP8, measured.
int library_rows(int major, DType dtype);

// Rows [from, below) of a task.
struct RowRange {
  int from = 0;
  int below = 0;
};
// Products of how many rows product_wide.cu takes in the loose mode, and product_exact.cu in the
// deterministic one, by the type of the weights, if it takes them at all (takes_wide() of
// stage_weights.h, takes_exact() of exact_stage.h) and is wanted from so many rows `from` on; 0: it
// never is. None where `below` is 0.
RowRange wide_kernel_rows(int major, DType dtype, int from);

// Tiles of such products, and wide_parts() as plan.spans. `pairs`: those of product_paired.cu where
// pairs_pay() says so.
void plan_wide_products(std::span<const ProductTask> tasks, int processors, bool pairs,
                        ProductPlan& plan);

// Tiles and spans of product_exact.cu.
void plan_exact_products(std::span<const ProductTask> tasks, int processors, ProductPlan& plan);

// The same with both sides in FP8 (product_wide_fp8.cu): of how many rows, with a library or
// without, and tiles. `pairs`: those of product_paired_fp8.cu likewise; whether it is they.
RowRange wide_fp8_rows(int major);
bool plan_wide_fp8_products(std::span<const ProductTask> tasks, int processors, bool pairs,
                            ProductPlan& plan);

// A part of a task for which the library's scratch memory is made: rows and panels.
struct ProductPart {
  int row = 0;
  int rows = 0;
  int panel = 0;
  int panels = 0;
};
// The parts of a task, so large that a part's unpacked weights have `bytes` and its sums, too, if
// one panel and one row do not need more.
void library_parts(const ProductTask& task, std::int64_t bytes, std::vector<ProductPart>& parts);
// What launch and task say of the part alone.
void take_part(const ProductPart& part, Products& launch, ProductTask& task);

// Both sides of a task's product are in FP8, and their blocks of inputs are the same.
bool fp8_rows(const ProductTask& task);

// Four neighbours of every row can be loaded at a time.
bool wide_rows(std::span<const ProductTask> tasks, std::int64_t ldx);

// Slots in groups, each of a token; their numbers begin at first_slot.
struct SlotList {
  std::span<const Group> groups;
  const std::int32_t* token = nullptr;
  int first_slot = 0;
};
// Which slots a token has, in the order of lists and groups: slots[first[t]] .. slots[first[t + 1]
// - 1].
struct TokenSlots {
  std::vector<std::int32_t> first;  // [tokens + 1]
  std::vector<std::int32_t> slots;
};
void slots_of_tokens(std::span<const SlotList> lists, int tokens, TokenSlots& out);

}  // namespace dsm::kernels::cuda
