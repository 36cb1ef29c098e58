// Products and attention of many rows with the processor's instructions for BF16, for the loose
// mode: rows are rounded to BF16, sums are FP32 in an order of their own. So bits depend on the
// processor, and on how many rows there are; a row's do not depend on what the others hold.
//
// Weights are packed as for every other product. Rows become operands first, once for all columns:
// tiles of 16 rows, in which 32 inputs of a row stand side by side.
#pragma once

#include <cstdint>

#include "kernels/params.h"

namespace dsm::kernels {

inline constexpr int kTileRows = 16;
inline constexpr int kStepInputs = 32;
// Of a work item: rows, so that a part of their inputs stays in the second-level cache, and panels
// at most, which read them one after the other.
inline constexpr int kItemRows = 512;
inline constexpr int kItemPanels = 4;

constexpr int tiles_of(int rows) {
  return (rows + kTileRows - 1) / kTileRows;
}
constexpr int steps_of(int inputs) {
  return (inputs + kStepInputs - 1) / kStepInputs;
}
int steps_of(const SegmentedMatrix& w);

// Rows as operands: [tiles][steps][16][32] in BF16. Inputs and rows that there are not are zeros;
// each segment of the inputs begins a step.
struct OperandRows {
  std::uint16_t* data = nullptr;
  int steps = 0;
  constexpr std::uint16_t* tile(int number) const {
    return data + static_cast<std::int64_t>(number) * steps * kTileRows * kStepInputs;
  }
};
constexpr std::int64_t operands_of(int tiles, int steps) {
  return static_cast<std::int64_t>(tiles) * steps * kTileRows * kStepInputs;
}

// What is made of them.
struct RowsToPack {
  const float* x = nullptr;
  std::int64_t ldx = 0;
  const std::int32_t* index = nullptr;  // [rows] rows of x to take; null: 0, 1, 2, ...
  int rows = 0;
  int k = 0;
  const SegmentedMatrix* segments = nullptr;  // of the inputs; null: one, all k
  OperandRows to;
};

// Each function computes a part of its operator, as those of ops.h: at most kItemRows rows or
// slots, whose operands are `rows`, by at most kItemPanels panels.
struct Bf16Ops {
  const char* name;  // amx

  void (*pack)(const RowsToPack&, int tile_begin, int tile_end);
  void (*linear)(const LinearParams&, int product, const OperandRows& rows, int row_begin,
                 int row_end, int panel_begin, int panel_end);
  // `kept`, if it has data: where its slots, from slot 0 on, become operands of the next product in
  // place of rows of h.
  void (*gate_up)(const GateUpParams&, int group, const OperandRows& rows, int slot_begin,
                  int slot_end, int panel_begin, int panel_end, const OperandRows& kept);
  // Adds what slots of a group give to their tokens' y, or with the first group, of which slot t is
  // token t, begins it with the residual.
  void (*row_parallel)(const RowParallelParams&, int group, const OperandRows& rows, int slot_begin,
                       int slot_end, int panel_begin, int panel_end);
  // Items [first, first + items) of one sequence and KV head, whose rows, at most kAttendedRows,
  // follow each other.
  void (*attention)(const AttentionParams&, int first, int items);
};

// Whether such products take weights of this type.
constexpr bool takes_bf16_rows(DType dtype) {
  return dtype == DType::kBF16 || dtype == DType::kF8E4M3 || is_integer(dtype);
}

// As many rows go past a block of the cache together; and the widest keys and values.
inline constexpr int kAttendedRows = 64;
inline constexpr int kMostKeyDim = 576;
inline constexpr int kMostValueDim = 512;
// Whether such attention takes this cache.
constexpr bool takes_bf16_rows(const KvLayer& kv) {
  return (kv.dtype == DType::kF32 || kv.dtype == DType::kBF16) && kv.key_dim % kStepInputs == 0 &&
         kv.value_dim % kStepInputs == 0 && kv.key_dim <= kMostKeyDim &&
         kv.value_dim <= kMostValueDim;
}

// What this processor has, and the system lets this process use; null: nothing.
const Bf16Ops* bf16_ops();

}  // namespace dsm::kernels
