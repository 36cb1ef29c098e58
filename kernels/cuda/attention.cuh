// What attention's kernels share, so that a row has the same bits in each of them: the rows of an
// item, which positions they attend to, products with rows of two BF16 terms or one, exponentials,
// and how the splits of a row, a block of the KV cache each, are merged in their order.
#pragma once

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/kv_operands.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/numbers.h"
#include "kernels/cuda/splits.h"

namespace dsm::kernels::cuda {

inline constexpr int kAttentionThreads = 256;
inline constexpr int kAttentionWarps = kAttentionThreads / 32;

// Positions from one row's scores to the next in shared memory: two more, to keep lanes on
// different banks.
inline constexpr int kScoreStride = kSplitPositions + 2;

// The running maximum of a row that has attended to nothing yet: below every score, and finite, so
// that differences are numbers.
inline constexpr float kNothing = -1e30F;

// The row of an item as a row of query and out.
__device__ inline std::int64_t row_of_item(const AttentionParams& p, const AttentionItem& item,
                                           int r) {
  const int row = item.row_begin + r;
  return (static_cast<std::int64_t>(row / p.heads) * p.kv.heads + item.kv_head) * p.heads +
         row % p.heads;
}
__device__ inline int position_of(const AttentionParams& p, const AttentionItem& item, int r) {
  return p.places[(item.row_begin + r) / p.heads].position;
}
// Block b of an item's sequence in the cache: KV block * heads + head.
__device__ inline std::int64_t cache_block(const AttentionParams& p, const AttentionItem& item,
                                           int b) {
  return std::int64_t{item.block_table[b]} * p.kv.heads + item.kv_head;
}

// Which positions of block b of its sequence a row attends to, as bits.
__device__ inline std::uint64_t block_mask(const AttentionParams& p, const AttentionItem& item,
                                           int r, int b) {
  const int seen = position_of(p, item, r) - b * kKvBlock + 1;
  if (seen <= 0) return 0;
  if (p.selection.words != nullptr) {
    return p.selection.words[(item.row_begin + r) / p.heads * p.selection.ld + b];
  }
  return seen < kKvBlock ? (std::uint64_t{1} << seen) - 1 : ~std::uint64_t{0};
}

// In shared memory an operand stands as [terms][lanes].
template <int kTerms>
inline constexpr int kOperandLanes = kTerms * 32;
template <int kTerms>
__device__ __forceinline__ void put(const RowOperand<kTerms>& a, uint4* to, int lane) {
#pragma unroll
  for (int t = 0; t < kTerms; ++t) {
    const auto& v = a.term[t].v;
    to[t * 32 + lane] = make_uint4(v[0], v[1], v[2], v[3]);
  }
}
template <int kTerms>
__device__ __forceinline__ RowOperand<kTerms> get(const uint4* from, int lane) {
  RowOperand<kTerms> a;
#pragma unroll
  for (int t = 0; t < kTerms; ++t) {
    a.term[t] = fragment_of(from[t * 32 + lane]);
  }
  return a;
}

// Of rows of an item, dimensions [16 step, 16 step + 16); a row past the item's counts as zeros.
template <int kTerms>
__device__ __forceinline__ RowOperand<kTerms> load_queries(const AttentionParams& p,
                                                           const AttentionItem& item, int first_row,
                                                           int step, int lane) {
  const int rows = item.row_end - item.row_begin;
  const auto query_of = [&](int r) {
    return r < rows ? p.query + row_of_item(p, item, r) * p.kv.key_dim : nullptr;
  };
  const int row = first_row + lane / 4;
  return row_operand<kTerms>(load_activations(query_of(row), query_of(row + 8),
                                              first_input(step * kStepInputs, lane), p.kv.key_dim,
                                              p.kv.key_dim % 4 == 0));
}

// sums[j] += a b[j] for kColumns products side by side. Of each the products of terms come in this
// order, largest first, without that of both remainders: what is left out is 2^-16 of a product at
// most, as what two terms leave of a value is.
template <DType kType, int kTerms, int kColumns>
__device__ __forceinline__ void multiply(float (&sums)[kColumns][4], const RowOperand<kTerms>& a,
                                         const KvOperand<kType> (&b)[kColumns]) {
#pragma unroll
  for (int j = 0; j < kColumns; ++j) mma_bf16(sums[j], a.term[0].v, b[j].v[0]);
  if constexpr (kTerms == 2) {
#pragma unroll
    for (int j = 0; j < kColumns; ++j) mma_bf16(sums[j], a.term[1].v, b[j].v[0]);
  }
  if constexpr (kKvTerms<kType> == 2) {
#pragma unroll
    for (int j = 0; j < kColumns; ++j) mma_bf16(sums[j], a.term[0].v, b[j].v[1]);
  }
}

// A row's exponentials in a split: of two terms e^x as the CPU has it, of one 2^x as the device has
// it, of differences that are score_scale() times those of scores. What is far below the maximum is
// zero, as is what a row does not attend to, whose score is minus infinity.
template <int kTerms>
__device__ __forceinline__ float score_scale(const AttentionParams& p) {
  constexpr float kLog2OfE = 1.44269504F;
  return kTerms == 2 ? p.scale : p.scale * kLog2OfE;
}
template <int kTerms>
__device__ __forceinline__ float exponential(float x) {
  if constexpr (kTerms == 2) {
    return x > -86.0F ? exp_of(x) : 0.0F;
  } else {
    return power_of_two(x);
  }
}
// The maximum of a split by that of its scores: finite also where nothing is attended to.
__device__ __forceinline__ float maximum_of(float top, float scale) {
  return fmaxf(top * scale, kNothing);
}
template <int kTerms>
__device__ __forceinline__ float exponential_of(float score, float scale, float maximum) {
  return exponential<kTerms>(fmaf(score, scale, -maximum));
}

// The sum of a row's exponentials is a tree over its positions, of which a lane adds up the four of
// a step.
__device__ __forceinline__ float sum_of_four(float a, float b, float c, float d) {
  return ((a + b) + c) + d;
}

// How a row goes on with a split in which its maximum is `next`: what it has so far is multiplied
// by `keep`, what the split gives by `take`. A split in which it attends to nothing changes no bit.
struct Factors {
  float keep = 1.0F;
  float take = 0.0F;
};
template <int kTerms>
__device__ __forceinline__ Factors factors_of(float best, float next) {
  const float top = fmaxf(best, next);
  return {exponential<kTerms>(best - top), exponential<kTerms>(next - top)};
}
__device__ __forceinline__ float merged(float so_far, float split, const Factors& factors) {
  return fmaf(split, factors.take, so_far * factors.keep);
}

}  // namespace dsm::kernels::cuda
