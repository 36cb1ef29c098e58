// How the inputs of a product are divided. They are cut into splits of 128 (a block of an FP8
// weight's scales), each the chain of one warp; 8 splits, a span, meet in a thread block, added in
// their order, and spans are added in their order. It depends on the weight alone, never on the
// rows: a row's bits are the same alone and among others.
#pragma once

#include <cstdint>

#include "kernels/cuda/numbers.h"
#include "kernels/params.h"

namespace dsm::kernels::cuda {

inline constexpr int kSplitInputs = kScaleBlock;
inline constexpr int kSpanSplits = 8;
inline constexpr int kSplitSteps = kSplitInputs / 16;  // of a tensor core

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

// With many rows (product_wide.cu) a thread block goes through stages of 64 inputs, all of them or,
// where blocks would be too few, a part: as many parts as spans at most.
inline constexpr int kWideInputs = 64;
DSM_HOST_DEVICE int wide_stages(const PackedMatrix& w) {
  return (w.k + kWideInputs - 1) / kWideInputs;
}
struct WidePart {
  int begin = 0;  // stages; none: there is no such part
  int end = 0;
};
DSM_HOST_DEVICE WidePart part_of_stages(const PackedMatrix& w, int stages, int part,
                                        int most_parts) {
  const int parts = spans_of(w) < most_parts ? spans_of(w) : most_parts;
  if (part >= parts) return {};
  return {stages * part / parts, stages * (part + 1) / parts};
}
DSM_HOST_DEVICE WidePart wide_part(const PackedMatrix& w, int part, int most_parts) {
  return part_of_stages(w, wide_stages(w), part, most_parts);
}
// The same where stages are splits (product_wide_fp8.cu).
DSM_HOST_DEVICE WidePart wide_fp8_part(const PackedMatrix& w, int part, int most_parts) {
  return part_of_stages(w, splits_of(w), part, most_parts);
}

// Attention: a split is a block of the KV cache. Splits are merged one after the other in the order
// of their positions, which depends on nothing else: a row's bits are the same whether its splits
// are side by side or follow each other in one thread block.
inline constexpr int kSplitPositions = kKvBlock;
constexpr int splits_of_positions(int positions) {
  return (positions + kSplitPositions - 1) / kSplitPositions;
}

// (token, head) pairs of a prompt that go through the cache together, and the widest values of
// which a thread holds all of its rows' sums.
inline constexpr int kPromptRows = 128;
inline constexpr int kMaxPromptValueDim = 128;

// Rows of a prompt's thread block, 16 for each warp: a cache in BF16 needs no arithmetic, so it is
// as well read for half of them, and two thread blocks share a processor.
constexpr int prompt_rows(DType dtype) {
  return dtype == DType::kBF16 ? kPromptRows / 2 : kPromptRows;
}
// Shared memory of that: queries as operands, a block of keys and one of values
// (prompt_blocks.cuh). `exact`: two terms of a query.
constexpr std::int64_t prompt_shared_bytes(const KvLayer& kv, bool exact) {
  const std::int64_t key = round_up(kv.key_dim, 16);
  const int cache_bytes = kv.dtype == DType::kF32 ? 4 : 2;  // of a value's terms
  return prompt_rows(kv.dtype) * key * (exact ? 4 : 2) +
         kKvBlock * (key + kMaxPromptValueDim) * cache_bytes;
}

// Of so many columns for each thread block.
DSM_HOST_DEVICE int parts_of_columns(int columns, int each) {
  return (columns + each - 1) / each;
}

}  // namespace dsm::kernels::cuda
