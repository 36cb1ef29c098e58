// The sum of a token's slots, by a thread block of kCombineThreads.
#pragma once

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/splits.h"

namespace dsm::kernels::cuda {

// kColumns neighbours of a token for each thread, in part number `part_number` of the columns. Of a
// token's slots some are on their way at a time, and added in their order.
template <int kColumns>
__device__ __forceinline__ void combine_token(const CombineParams& p, std::int64_t token,
                                              int part_number) {
  constexpr int kAhead = 8;
  struct alignas(kColumns * sizeof(float)) Columns {
    float v[kColumns];
  };
  const int column = (part_number * kCombineThreads + static_cast<int>(threadIdx.x)) * kColumns;
  if (column >= p.n) return;
  const std::int64_t begin = p.first != nullptr ? p.first[token] : token * p.each;
  const std::int64_t end = p.first != nullptr ? p.first[token + 1] : begin + p.each;
  Columns sum = {};
  for (std::int64_t first = begin; first < end; first += kAhead) {
    Columns part[kAhead] = {};
    bool there[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const std::int64_t slot = first + i < end ? p.slots[first + i] : -1;
      there[i] = slot >= 0;
      if (there[i]) part[i] = *reinterpret_cast<const Columns*>(p.x + slot * p.n + column);
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (!there[i]) continue;  // never the first
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        sum.v[c] = first + i == begin ? part[i].v[c] : sum.v[c] + part[i].v[c];
      }
    }
  }
  const std::int64_t at = token * p.ldy + column;
  if (p.residual != nullptr) {
    const Columns residual = *reinterpret_cast<const Columns*>(p.residual + at);
#pragma unroll
    for (int c = 0; c < kColumns; ++c) sum.v[c] = residual.v[c] + sum.v[c];
  }
  *reinterpret_cast<Columns*>(p.y + at) = sum;
}

}  // namespace dsm::kernels::cuda
