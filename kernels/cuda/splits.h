// How the inputs of a product are divided. They are cut into splits of 128 (a block of an FP8
// weight's scales), each the chain of one warp; 8 splits, a span, meet in a thread block, added in
// their order, and spans are added in their order. It depends on the weight alone, never on the
// rows: a row's bits are the same alone and among others.
#pragma once

#include "kernels/cuda/numbers.h"
#include "kernels/params.h"

namespace dsm::kernels::cuda {

inline constexpr int kSplitInputs = kScaleBlock;
inline constexpr int kSpanSplits = 8;

DSM_HOST_DEVICE int splits_of(const PackedMatrix& w) {
  return (w.scale_phase + w.k + kSplitInputs - 1) / kSplitInputs;
}
DSM_HOST_DEVICE int spans_of(const PackedMatrix& w) {
  return (splits_of(w) + kSpanSplits - 1) / kSpanSplits;
}
DSM_HOST_DEVICE int split_begin(const PackedMatrix& w, int split) {
  const int begin = split * kSplitInputs - w.scale_phase;
  return begin > 0 ? begin : 0;
}
DSM_HOST_DEVICE int split_end(const PackedMatrix& w, int split) {
  const int end = (split + 1) * kSplitInputs - w.scale_phase;
  return end < w.k ? end : w.k;
}

// Attention: the positions of a split are those of consecutive blocks of the KV cache.
inline constexpr int kSplitBlocks = 4;
inline constexpr int kSplitPositions = kSplitBlocks * kKvBlock;
constexpr int splits_of_positions(int positions) {
  return (positions + kSplitPositions - 1) / kSplitPositions;
}

}  // namespace dsm::kernels::cuda
