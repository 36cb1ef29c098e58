// Experts whose groups stay on the device: the router's choice as groups, and products of groups
// whose sizes the host does not know. As launch.h says of its functions.
#pragma once

#include "kernels/cuda/launch.h"

namespace dsm::kernels::cuda {

void group_experts(const GroupExpertsParams& params, Stream stream);

// quantise() of the slots of all groups but the first: x and y begin at slot routing.tokens, and
// factors are the slots' weights.
void quantise_slots(const QuantiseParams& params, const GroupExpertsParams& routing, Stream stream);

// Writes the tasks and tiles of a product of groups [1, 1 + experts), for those whose weights have
// one type. The number of tiles is known by its bound alone: those beyond the last have no rows.
struct ExpertTasks {
  const Group* groups = nullptr;  // [1 + experts]
  int experts = 0;
  // One of the two, [1 + experts]. Of segmented weights, which have one segment, x is cut at it.
  const PackedMatrix* w = nullptr;
  const SegmentedMatrix* segmented = nullptr;
  DType dtype = DType::kF32;
  const float* x = nullptr;
  std::int64_t x_step = 0;  // from a slot's row of x to the next's; 0: rows are named by a list
  Fp8Rows x_fp8 = {};       // x, uncut
  float* y = nullptr;       // [slots], y_step
  std::int64_t y_step = 0;
  int tile_rows = 0;
  int tile_count = 0;  // the bound

  ProductTask* tasks = nullptr;  // [experts]
  ProductTile* tiles = nullptr;  // [tile_count]
};
void expert_tasks(const ExpertTasks& params, Stream stream);

// Of few tokens, of which a group of an expert has at most kTileRows: the groups that have slots.
inline constexpr int kFewExperts = 256;
inline constexpr int kFewPairs = 256;  // of a token and a choice
struct FewTile {
  std::int32_t expert = 0;  // counted from the first that has a group
  std::int32_t first_slot = 0;
  std::int32_t rows = 0;
};
struct FewTiles {
  FewTile* tiles = nullptr;  // [kFewPairs]
  std::int32_t* count = nullptr;
};

// Tiles of `pairs` rows in groups of `experts` at most, however they are spread.
constexpr int most_expert_tiles(int pairs, int experts, int tile_rows) {
  const int started = pairs < experts ? pairs : experts;  // groups that have any row
  const int tiles = pairs / tile_rows + started;
  return tiles < pairs ? tiles : pairs;
}
// Rows of a tile for groups of this size on average.
constexpr int expert_tile_rows(int pairs, int experts, DType dtype) {
  int rows = 16;
  while (rows * experts < pairs && rows < max_tile_rows(dtype)) rows *= 2;
  return rows;
}

// In tiles of how many rows the kernel for many (product_wide.h) takes groups of experts, which
// have `pairs` rows together; 0: it does not. `from`: the fewest rows of a task that are its own
// (wide_kernel_rows()), here of a group on average; 0: none are.
constexpr int wide_expert_rows(int from, int pairs, int experts) {
  // A tile of 128 rows takes longer than one of 64 by a quarter or a half, because reading weights
  // weighs as much as the arithmetic (reckoned from what both take of dense weights). So groups of
  // about 64 rows are better in one tile than in two, although much of it may be empty.
  constexpr std::int64_t kNarrow = 48;
  if (from == 0 || experts == 0) return 0;
  if (pairs < std::int64_t{from} * experts) return 0;
  return pairs > kNarrow * experts ? 128 : 64;
}

}  // namespace dsm::kernels::cuda
