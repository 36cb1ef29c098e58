// The norm of a row by a thread block of another size than rms_norm_kernel's, with its bits.
#pragma once

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/fragments.h"

namespace dsm::kernels::cuda {

// A thread has fours of a row that are as many fours apart as there are threads. The sum of squares
// is a chain for each thread, added in one tree: of a row's fours, rounded up to whole warps, or of
// this many threads.
inline constexpr int kNormThreads = 1024;
DSM_HOST_DEVICE constexpr int norm_threads(int width) {
  const int threads = (width / 4 + 31) / 32 * 32;
  return threads < kNormThreads ? threads : kNormThreads;
}

// kThreads of the block, all of it, stand for norm_threads(): each for those that are kThreads
// apart. Of each of those the first four stay in registers, so a row of up to 4,096 is read once.
// Others may still read warp_sum when this returns.
template <int kThreads>
__device__ __forceinline__ void norm_row(const RmsNormParams& p, std::int64_t row,
                                         float (&warp_sum)[kNormThreads / 32]) {
  constexpr int kEach = kNormThreads / kThreads;
  const float* x = p.x + (p.row_index != nullptr ? p.row_index[row] : row) * p.ldx;
  float* y = p.y + row * p.ldy;
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  const int threads = norm_threads(p.width);
  const int fours = p.width / 4;
  const auto aligned = [](const float* values, std::int64_t ld) {
    return reinterpret_cast<std::uintptr_t>(values) % 16 == 0 && ld % 4 == 0;
  };
  const bool wide = aligned(p.x, p.ldx) && aligned(p.y, p.ldy) && aligned(p.weight, 0);
  const auto load = [wide](const float* from) {
    return wide ? load_four(from) : Four<float>{{from[0], from[1], from[2], from[3]}};
  };
  Four<float> held[kEach] = {};
  Four<float> weight[kEach] = {};
#pragma unroll
  for (int e = 0; e < kEach; ++e) {
    const int at = thread + e * kThreads;
    if (at >= threads || at >= fours) continue;
    held[e] = load(x + 4 * at);
    weight[e] = load(p.weight + 4 * at);
  }
#pragma unroll
  for (int e = 0; e < kEach; ++e) {
    const int first = thread + e * kThreads;
    if (first >= threads) break;  // whole warps do
    float sum = 0.0F;
    for (int at = first; at < fours; at += threads) {
      const Four<float> four = at == first ? held[e] : load(x + 4 * at);
#pragma unroll
      for (int j = 0; j < 4; ++j) sum = fmaf(four.v[j], four.v[j], sum);
    }
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffU, sum, step);
    if (lane == 0) warp_sum[first / 32] = sum;
  }
  __syncthreads();
  float all = lane < threads / 32 ? warp_sum[lane] : 0.0F;
  for (int step = 16; step > 0; step /= 2) all += __shfl_xor_sync(0xffffffffU, all, step);
  const float inverse = 1.0F / sqrtf(all / static_cast<float>(p.width) + p.eps);
#pragma unroll
  for (int e = 0; e < kEach; ++e) {
    const int first = thread + e * kThreads;
    if (first >= threads) break;
    for (int at = first; at < fours; at += threads) {
      const Four<float> of_x = at == first ? held[e] : load(x + 4 * at);
      const Four<float> of_weight = at == first ? weight[e] : load(p.weight + 4 * at);
      Four<float> four;
#pragma unroll
      for (int j = 0; j < 4; ++j) four.v[j] = of_weight.v[j] * (of_x.v[j] * inverse);
      float* to = y + 4 * at;
      if (wide) {
        *reinterpret_cast<Four<float>*>(to) = four;
      } else {
#pragma unroll
        for (int j = 0; j < 4; ++j) to[j] = four.v[j];
      }
    }
  }
}

}  // namespace dsm::kernels::cuda
