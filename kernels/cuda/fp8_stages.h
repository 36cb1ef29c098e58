// A stage of a product of many rows in FP8 by FP8 (product_wide_fp8.cu): the 128 inputs that have
// one scale, of rows and of panels, as they stand in shared memory, and what lanes take from there.
//
// A warpgroup's product takes 64 columns as operand A: of warp w's lane 4g + q, registers 0 .. 3
// are lines g, g + 8, g, g + 8 of 16; slots 4q .. 4q + 3 (0, 1) or those 16 further of 32. Lines g
// and g + 8 are columns 16 w + 2g and 16 w + 2g + 1 of the panel: neighbours, which a load of
// matrices transposes (load_transposed() of ptx.cuh) so that a lane gets both of them, of two
// neighbouring inputs, in one register. Such a matrix is 8 lines of 16 bytes, a line an input. They
// are two neighbours from each of four pieces of 32 inputs, the lanes' of one q each; 16 bytes more
// from one piece to the next keep them on different banks.
//
// Functions of numbers, so that a test on the CPU can be all lanes.
#pragma once

#include <cstdint>

#include "kernels/cuda/numbers.h"
#include "kernels/params.h"

namespace dsm::kernels::cuda {

inline constexpr int kFp8StageInputs = kScaleBlock;
inline constexpr int kFp8StageSteps = kFp8StageInputs / 32;

// A panel: four pieces of [32 inputs][64] bytes.
inline constexpr int kFp8Pieces = 4;
inline constexpr int kFp8PieceInputs = kFp8StageInputs / kFp8Pieces;
inline constexpr int kFp8PieceBytes = kFp8PieceInputs * kPanel + 16;
// From the matrices of one step to those of the next.
inline constexpr int kFp8StepBytes = kFp8PieceInputs / kFp8StageSteps * kPanel;

// Where the line begins that a lane names to a load of four matrices of step 0: line lane % 8 of
// matrix lane / 8.
DSM_HOST_DEVICE int fp8_line(int warp, int lane) {
  return lane % 8 / 2 * kFp8PieceBytes + (lane / 8 * 2 + lane % 2) * kPanel + warp % 4 * 16;
}

// What a lane has of four matrices becomes its operand A of a step.
DSM_HOST_DEVICE void fp8_operand_of(std::uint32_t (&v)[4]) {
  for (int i = 0; i < 4; i += 2) {
    const std::uint32_t first = bytes_of(v[i], v[i + 1], 0x6420);  // of the first column
    v[i + 1] = bytes_of(v[i], v[i + 1], 0x7531);
    v[i] = first;
  }
}
// Before: zeros for the inputs of a lane's piece from `left` on.
DSM_HOST_DEVICE void clear_fp8_inputs(int step, int left, std::uint32_t (&matrices)[4]) {
  for (int m = 0; m < 4; ++m) {
    const int there = left - (step * 8 + m * 2);
    if (there < 2) matrices[m] = there == 1 ? matrices[m] & 0xffffU : 0;
  }
}

// Rows are operand B: a row's slots, 128 bytes, stand in order. Which of the stage's inputs a slot
// is for:
DSM_HOST_DEVICE int fp8_input(int slot) {
  return slot % 16 / 4 * kFp8PieceInputs + slot / 16 * 4 + slot % 4;
}

// Where four neighbours of the stage's inputs, from 4 `four` on, stand among the rows, in words: a
// row's chunk of 16 bytes has one such word from each piece, and chunk c stands at place
// c ^ (row % 8) (SharedRows of ptx.cuh).
DSM_HOST_DEVICE int fp8_word_at(int row, int four) {
  constexpr int kPieceWords = kFp8PieceInputs / 4;
  return row * (kFp8StageInputs / 4) + (four % kPieceWords ^ row % 8) * 4 + four / kPieceWords;
}

// Rows of a product of a warpgroup. Its sums of a lane are, in registers 4j .. 4j + 3, rows 8j + 2q
// and 8j + 2q + 1 of the first column and of the second: so a lane's scales of two such j are four
// neighbours, beside those of the other q.
inline constexpr int kFp8BlockRows = 64;
DSM_HOST_DEVICE int fp8_scale_place(int row) {
  return row / 16 * 16 + row % 8 / 2 * 4 + row / 8 % 2 * 2 + row % 2;
}

}  // namespace dsm::kernels::cuda
