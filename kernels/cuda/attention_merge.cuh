// The splits of a row of attention, merged in their order by a thread block.
#pragma once

#include "kernels/cuda/attention.cuh"

namespace dsm::kernels::cuda {

// Parts of the output that a thread asks for at a time.
inline constexpr int kPartsAhead = 32;

// How a row goes through kThreads of its splits, as many as the thread block has threads.
template <int kThreads>
struct MergedPart {
  Factors factors[kThreads];
  float total[kThreads];
  float warp_top[kThreads / 32];

  // Of splits [begin, begin + kThreads); `best` is the row's maximum before them, and after
  // them when it returns. A maximum is the same whatever the order, so a split's factors need
  // nothing of those before it but that. The whole thread block calls it.
  __device__ void find(const AttentionLaunch& launch, std::int64_t first, int begin, int splits,
                       float& best) {
    const int thread = static_cast<int>(threadIdx.x);
    const int lane = thread % 32;
    const int split = begin + thread;
    // Both are asked for at once; where the sum is zero, nobody has written the maximum.
    const float sum = split < splits ? launch.total[first + split] : 0.0F;
    const float its = split < splits ? launch.best[first + split] : kNothing;
    const bool attends = sum != 0.0F;
    const float mine = attends ? its : kNothing;
    float top = mine;  // of the lanes up to this one
    for (int step = 1; step < 32; step *= 2) {
      const float lower = __shfl_up_sync(kAllLanes, top, step);
      if (lane >= step) top = fmaxf(top, lower);
    }
    const float lower = __shfl_up_sync(kAllLanes, top, 1);
    if (lane == 31) warp_top[thread / 32] = top;
    __syncthreads();
    float before = lane > 0 ? fmaxf(best, lower) : best;
    for (int w = 0; w < kThreads / 32; ++w) {
      if (w < thread / 32) before = fmaxf(before, warp_top[w]);
      best = fmaxf(best, warp_top[w]);
    }
    factors[thread] = !attends       ? Factors{}
                      : launch.exact ? factors_of<2>(before, mine)
                                     : factors_of<1>(before, mine);
    total[thread] = sum;
    __syncthreads();
  }
};

// Column `column` of up to kPartsAhead splits from `first` on, of which there are `count`.
__device__ __forceinline__ void ask_parts(const AttentionLaunch& launch, std::int64_t first,
                                          int count, int column, float (&split)[kPartsAhead]) {
  const int width = launch.params.kv.value_dim;
#pragma unroll
  for (int i = 0; i < kPartsAhead; ++i) {
    split[i] = column < width && i < count ? launch.partial[(first + i) * width + column] : 0.0F;
  }
}

// Row r of an item, columns [kThreads part_number, ..+ kThreads). Others may still read `part` when
// this returns.
template <int kThreads>
__device__ __forceinline__ void merge_row(const AttentionLaunch& launch, int item_number, int r,
                                          int part_number, MergedPart<kThreads>& part) {
  const AttentionParams& p = launch.params;
  const AttentionItem item = p.items[launch.first_item + item_number];
  if (r >= item.row_end - item.row_begin) return;  // the whole thread block does
  const int splits = position_of(p, item, r) / kSplitPositions + 1;
  const std::int64_t first =
      (static_cast<std::int64_t>(item_number) * launch.item_rows + r) * launch.splits;
  const int column = part_number * kThreads + static_cast<int>(threadIdx.x);
  const bool there = column < p.kv.value_dim;
  float best = kNothing;
  float total = 0.0F;
  float sum = 0.0F;
  for (int begin = 0; begin < splits; begin += kThreads) {
    const int count = splits - begin < kThreads ? splits - begin : kThreads;
    float split[kPartsAhead];
    ask_parts(launch, first + begin, count, column, split);
    part.find(launch, first, begin, splits, best);
    for (int at = 0; at < count; at += kPartsAhead) {
      if (at > 0) ask_parts(launch, first + begin + at, count - at, column, split);
#pragma unroll
      for (int i = 0; i < kPartsAhead; ++i) {
        if (at + i >= count) break;
        const float its = part.total[at + i];
        total = merged(total, its, part.factors[at + i]);
        // Of a split that the row does not attend to nobody may have written the part.
        sum = merged(sum, its != 0.0F ? split[i] : 0.0F, part.factors[at + i]);
      }
    }
    __syncthreads();  // what is there has been read
  }
  if (there) p.out[row_of_item(p, item, r) * p.kv.value_dim + column] = sum / total;
}

}  // namespace dsm::kernels::cuda
