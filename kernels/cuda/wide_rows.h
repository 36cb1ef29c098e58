// Rows in BF16 as operands of the products for many rows (product_wide.h), in memory as they are to
// stand in shared memory: units of 128 rows, of each stages of 64 inputs, of each stage the rows'
// 128 bytes one after the other (SharedRows of ptx.cuh).
//
// A row's pairs of inputs are 4 pieces of 8: word `piece` of chunk `c`, 16 bytes, is pair c of the
// piece, and chunk c stands at place c ^ (row % 8). That is the order in which the lanes of a
// warpgroup have the weights' pairs in registers (product_stage.cuh).
#pragma once

#include <cstdint>

#include "kernels/cuda/numbers.h"

namespace dsm::kernels::cuda {

inline constexpr int kUnitRows = 128;
inline constexpr int kUnitStageBytes = kUnitRows * 128;
inline constexpr int kRowWords = 32;  // of 4 bytes, in a stage

struct WideRows {
  void* data = nullptr;
  int stages = 0;
};
constexpr std::int64_t wide_rows_bytes(int rows, int stages) {
  return std::int64_t{(rows + kUnitRows - 1) / kUnitRows} * stages * kUnitStageBytes;
}

// Where chunk c of a unit's row stands in a stage, in chunks.
DSM_HOST_DEVICE int chunk_at(int row, int c) {
  return row * (kRowWords / 4) + (c ^ row % 8);
}
// Where pair p of a stage's inputs stands, in words.
DSM_HOST_DEVICE int word_at(int row, int p) {
  return chunk_at(row, p % 8) * 4 + p / 8;
}
// The stage of a row's unit, of so many stages.
DSM_HOST_DEVICE std::int64_t unit_stage(int row, int stage, int stages) {
  return static_cast<std::int64_t>(row / kUnitRows) * stages + stage;
}

}  // namespace dsm::kernels::cuda
