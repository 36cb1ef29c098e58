// Operators of a megakernel's list, with the memory that each of them reads and writes. Pure,
// tested on the CPU.
#pragma once

#include <span>
#include <vector>

#include "kernels/cuda/megakernel.h"

namespace dsm::kernels::cuda {

// Rows of memory that an operator reads or writes.
struct Touched {
  const void* from = nullptr;
  std::int64_t bytes = 0;  // of a row
  std::int64_t step = 0;   // to the next one, in bytes
  std::int64_t rows = 1;
  bool written = false;
};
// What a norm reads, of which an index names some of a step's rows, and what it gives.
Touched rows_of_norm(const RmsNormParams& params);
Touched rows_normed(const RmsNormParams& params);
// Whether they may have bytes in common; of columns of the same rows it is known that they do not.
bool meet(const Touched& a, const Touched& b);

struct PlannedOp {
  MegakernelOp op;
  std::vector<Touched> touched;  // but for what stays as it is: weights and the host's lists
  int phase = 0;
};

// What may be in the list.
bool in_megakernel(const RmsNormParams& params);
// Each of up to kMegakernelRows rows.
bool in_megakernel(const Products& launch, std::span<const ProductTask> tasks);
bool in_megakernel(const AttentionLaunch& launch);
bool in_megakernel(const RouterParams& params);
constexpr bool in_megakernel(const GroupExpertsParams& p) {
  return p.tokens <= kMegakernelRows && p.experts <= kFewExperts && p.tokens * p.top_k <= kFewPairs;
}
bool in_megakernel(const CombineParams& params);

// How many spans of a panel a block goes through, one after the other: as many as may be without a
// block having more to read than with fewer, since parts of a panel's sums meet in memory.
int megakernel_spans_each(int spans, int panels, int blocks);

// Operators of each kind, and how many units they have.
PlannedOp norm_op(const RmsNormParams& params);
// `tasks`: all of them, or with experts none.
PlannedOp products_op(const MegakernelProducts& params, std::span<const ProductTask> tasks);
PlannedOp kv_write_op(const KvWriteParams& params);
PlannedOp kv_write_heads_op(const KvWriteHeadsParams& params);
PlannedOp rope_query_op(const RopeQueryParams& params);
PlannedOp splits_op(const AttentionLaunch& launch);
PlannedOp merge_op(const AttentionLaunch& launch);
PlannedOp route_op(const RouteTokens& params);
PlannedOp combine_op(const CombineParams& params);
PlannedOp count_move_op(const CountMove& params);

}  // namespace dsm::kernels::cuda
