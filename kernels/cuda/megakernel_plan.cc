#include <algorithm>

#include "kernels/cuda/megakernel.h"
#include "kernels/cuda/splits.h"

namespace dsm::kernels::cuda {
namespace {

template <class Params>
MegakernelOp op_of(MegakernelKind kind, const Params& params, std::int64_t units) {
  MegakernelOp op;
  op.kind = kind;
  op.units = static_cast<std::int32_t>(units);
  op.set(params);
  return op;
}

constexpr int parts_of(int count, int each) {
  return (count + each - 1) / each;
}

}  // namespace

bool in_megakernel(const RmsNormParams& p) {
  return p.width % 4 == 0;
}

bool in_megakernel(const Products& launch, DType dtype) {
  return dtype == DType::kBF16 && !launch.fp8_rows && launch.tile_count == 1 &&
         launch.tile_rows == kMegakernelRows;
}

bool in_megakernel(const AttentionLaunch& launch) {
  return launch.item_rows <= kMegakernelRows && launch.params.kv.key_dim <= kMegakernelKeyDim &&
         launch.params.selection.words == nullptr;
}

bool may_be_of_product(const RmsNormParams& p) {
  return in_megakernel(p) && p.for_products == 1 && p.taken == RowsTaken::kAsTheyAre &&
         p.rows <= kNormedRows &&
         p.rows * p.width * static_cast<int>(sizeof(float)) <= kNormedBytes;
}

bool is_of_product(const RmsNormParams& norm, const Products& launch, const ProductTask& task) {
  return task.x == norm.y && launch.ldx == norm.ldy && task.w.k == norm.width;
}

int megakernel_spans_each(int spans, int panels, int blocks) {
  int best = 1;
  int least = -1;  // spans of the block that has most
  for (int each = 1; each <= spans; ++each) {
    const int most = parts_of(panels * parts_of(spans, each), blocks) * each;
    if (least < 0 || most <= least) {
      least = most;
      best = each;
    }
  }
  return best;
}

MegakernelOp norm_op(const RmsNormParams& p) {
  return op_of(MegakernelKind::kNorm, p, p.rows);
}

MegakernelOp product_op(const Products& launch, const ProductTask& task,
                        const RmsNormParams& norm) {
  return op_of(MegakernelKind::kProduct, OneProduct{launch, task, norm},
               std::int64_t{launch.panels} * parts_of(launch.spans, launch.spans_each));
}

MegakernelOp kv_write_heads_op(const KvWriteHeadsParams& p) {
  return op_of(MegakernelKind::kKvWriteHeads, p, std::int64_t{p.tokens} * p.kv.heads);
}

MegakernelOp rope_query_op(const RopeQueryParams& p) {
  return op_of(MegakernelKind::kRopeQuery, p,
               parts_of(p.tokens * p.heads * p.rope.pairs, kMegakernelThreads));
}

MegakernelOp splits_op(const AttentionLaunch& p) {
  return op_of(MegakernelKind::kAttentionSplits, p, std::int64_t{p.items} * p.splits);
}

MegakernelOp merge_op(const AttentionLaunch& p) {
  return op_of(MegakernelKind::kAttentionMerge, p, std::int64_t{p.items} * p.item_rows);
}

MegakernelOp count_move_op(const CountMove& params) {
  return op_of(MegakernelKind::kCountMove, params, 1);
}

void link_ops(std::span<MegakernelOp> ops, int blocks) {
  std::int32_t next_product = -1;
  for (std::size_t i = ops.size(); i-- > 0;) {
    if (ops[i].kind != MegakernelKind::kProduct) continue;
    ops[i].ask_for = next_product;
    next_product = static_cast<std::int32_t>(i);
  }
  std::int64_t units = 0;  // since all waited for each other
  for (MegakernelOp& op : ops) {
    if (op.waits) units = 0;
    op.first = static_cast<std::int32_t>(units % blocks);
    units += op.units;
  }
}

}  // namespace dsm::kernels::cuda
