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
  bool spans_apart = false;
};

// The blocks are too few for the device unless each takes one span alone; the spans then meet in
// memory. Each processor has two blocks at a time. A block that goes through all spans of a long
// matrix takes long, so the last ones leave much of the device idle unless there are many; against
// that stands the writing and reading of the partial sums, which of up to 16 rows are few.
constexpr bool spans_apart(int spans, int tile_rows, int tiles, int panels, int processors) {
  const int enough = tile_rows == 16 ? 8 : 2;
  return spans > 1 && std::int64_t{tiles} * panels < std::int64_t{enough} * processors;
}

// `processors`: of the device, each of which holds a block or two at a time. Reuses plan.tiles.
void plan_products(std::span<const ProductTask> tasks, DType dtype, int processors,
                   ProductPlan& plan);

// From how many rows on a library's product pays, whose kernels use more of the tensor cores, but
// which wants the weights unpacked first: 4 bytes more through memory for each weight. By the GPU's
// compute capability, of which `major` is the first number.
int library_rows(int major);

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
