// What the products of many rows (product_wide.cu, product_paired.cu) have in shared memory of 64
// inputs: rows as SharedRows, and panels in pieces, so that a lane's weights are registers of
// operand A.
#pragma once

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/splits.h"

namespace dsm::kernels::cuda {

inline constexpr int kStageSteps = kWideInputs / 16;
inline constexpr int kStageRowBytes = kWideInputs * 2;
// A stage of a panel: [4 pieces][8 pairs of inputs][64] words, a piece for the lanes 4g + q of one
// q. 32 bytes more from one to the next keep them on different banks.
inline constexpr int kPieces = 4;
inline constexpr int kStagePairs = kWideInputs / 2;
inline constexpr int kPiecePairs = kStagePairs / kPieces;
inline constexpr int kPairBytes = kPanel * 4;
inline constexpr int kPieceBytes = kPiecePairs * kPairBytes + 32;

// Pairs of a piece that there are, of the `left` from the stage's first on.
__device__ __forceinline__ int pairs_of_piece(int left, int piece) {
  const int pairs = left - piece * kPiecePairs;
  return pairs < 0 ? 0 : pairs < kPiecePairs ? pairs : kPiecePairs;
}

}  // namespace dsm::kernels::cuda
