// What attention's kernels share: the rows of an item, which positions they attend to, and the
// exponentials of a split.
#pragma once

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/numbers.h"
#include "kernels/cuda/splits.h"

namespace dsm::kernels::cuda {

inline constexpr int kAttentionThreads = 256;

// The splits of a cache in BF16 or FP8 (attention_tensor.cu).
void tensor_splits(const AttentionLaunch& launch, Stream stream);

// Stands for a block to which no row of the item attends.
inline constexpr std::int64_t kUnread = -1;
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

// A split as a thread block takes it.
template <int kRows>
struct SplitBlocks {
  std::int64_t block[kSplitBlocks];  // KV block * heads + head, or kUnread
  std::uint64_t mask[kRows][kSplitBlocks];

  // By the whole thread block; to be read after a barrier.
  __device__ void find(const AttentionParams& p, const AttentionItem& item, int split) {
    const int rows = item.row_end - item.row_begin;
    const int thread = static_cast<int>(threadIdx.x);
    for (int i = thread; i < rows * kSplitBlocks; i += kAttentionThreads) {
      mask[i / kSplitBlocks][i % kSplitBlocks] =
          block_mask(p, item, i / kSplitBlocks, split * kSplitBlocks + i % kSplitBlocks);
    }
    __syncthreads();
    if (thread >= kSplitBlocks) return;
    std::uint64_t any = 0;
    for (int r = 0; r < rows; ++r) any |= mask[r][thread];
    block[thread] =
        any == 0 ? kUnread
                 : std::int64_t{item.block_table[split * kSplitBlocks + thread]} * p.kv.heads +
                       item.kv_head;
  }
};

// Turns a row's scores of a split into exponentials, with zeros where it does not attend; one warp.
// mask: the row's words. score(i) is position i's place.
template <class Score>
__device__ void exponentials(const std::uint64_t* mask, const Score& score, float* best,
                             float* total) {
  constexpr int kEach = kSplitPositions / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const auto attends = [&](int at) { return (mask[at / kKvBlock] >> at % kKvBlock & 1) != 0; };
  float value[kEach];
  float top = as_float(0xff800000U);
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const int at = i * 32 + lane;
    value[i] = attends(at) ? score(at) : as_float(0xff800000U);
    top = fmaxf(top, value[i]);
  }
  for (int step = 16; step > 0; step /= 2)
    top = fmaxf(top, __shfl_xor_sync(0xffffffffU, top, step));
  float sum = 0.0F;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const int at = i * 32 + lane;
    const float e = attends(at) ? exp_of(value[i] - top) : 0.0F;
    score(at) = e;
    sum += e;
  }
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffU, sum, step);
  if (lane == 0) {
    *best = top;
    *total = sum;
  }
}

}  // namespace dsm::kernels::cuda
