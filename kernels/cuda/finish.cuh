// What is done with the sums of a product once they are whole.
#pragma once

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/fragments.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/numbers.h"

namespace dsm::kernels::cuda {

// The sums of four columns over spans in their order, of which each thread block has written one:
// past the first cache, which may hold what was there before.
__device__ __forceinline__ void add_spans(const float* from, std::int64_t step, int spans,
                                          float (&total)[4]) {
  constexpr int kAhead = 8;  // that are on their way at a time
  for (int first = 0; first < spans; first += kAhead) {
    float4 part[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (first + i < spans) {
        part[i] = __ldcg(reinterpret_cast<const float4*>(from + (first + i) * step));
      }
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (first + i >= spans) break;
      const float v[4] = {part[i].x, part[i].y, part[i].z, part[i].w};
#pragma unroll
      for (int j = 0; j < 4; ++j) total[j] = first + i == 0 ? v[j] : total[j] + v[j];
    }
  }
}

// silu(gate) up weight in the loose mode, with 2^x and a quotient as the device has them.
__device__ __forceinline__ float gated(float gate, float up, float weight) {
  constexpr float kLog2OfE = 1.44269504F;
  return __fdividef(gate * up * weight, 1.0F + power_of_two(-kLog2OfE * gate));
}

// Columns column .. column + 3 of a panel in row `row` of a task, which may lie past its rows. All
// threads of a warp call it together: 2 kUp neighbours for a row, of which the last kUp have
// columns 32 further than the first.
template <int kUp = kPanel / 8>
__device__ __forceinline__ void finish(const Products& p, const ProductTask& task, int row,
                                       int panel, int column, const float (&sum)[4]) {
  constexpr int kHalf = kPanel / 2;
  if (p.swiglu) {
    float gate[4];
    float up[4];
    const bool begun = task.start != nullptr && row < task.rows;
    const float* start = begun ? task.start + row * p.lds + panel * kPanel + column : nullptr;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      gate[i] = begun ? start[i] + sum[i] : sum[i];
      // The columns of `up` are those of the thread kUp further.
      up[i] = __shfl_down_sync(kAllLanes, gate[i], kUp, 2 * kUp);
    }
    if (row >= task.rows || column >= kHalf) return;
    const float weight = p.weight[task.first_row + row];
    float* h = task.y + row * p.ldy + panel * kHalf + column;
#pragma unroll
    for (int i = 0; i < 4; ++i) h[i] = gate[i] * sigmoid_of(gate[i]) * up[i] * weight;
    return;
  }
  if (row >= task.rows) return;
  const int first = panel * kPanel + column;
  const std::int64_t at = row * p.ldy + first;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (first + i >= task.w.n) return;
    float value = sum[i];
    if (p.accumulate) value = task.y[at + i] + value;
    if (p.bias != nullptr) value += p.bias[first + i];
    if (p.residual != nullptr) value = p.residual[at + i] + value;
    task.y[at + i] = value;
  }
}

// Whether four neighbours can be loaded and stored at a time of everything that finish_four() has
// to do with.
__device__ __forceinline__ bool by_fours(const Products& p, const ProductTask& task) {
  const auto aligned = [](const void* at) {
    return reinterpret_cast<std::uintptr_t>(at) % sizeof(Four<float>) == 0;
  };
  return p.ldy % 4 == 0 && p.lds % 4 == 0 && task.w.n % 4 == 0 && aligned(task.y) &&
         aligned(task.start) && aligned(p.bias) && aligned(p.residual);
}

// The same where n is a multiple of four and all rows that are read and written allow four
// neighbours to be loaded and stored at a time.
template <int kUp = kPanel / 8>
__device__ __forceinline__ void finish_four(const Products& p, const ProductTask& task, int row,
                                            int panel, int column, Four<float> sum) {
  constexpr int kHalf = kPanel / 2;
  const auto add = [](const Four<float>& a, const Four<float>& b) {
    return Four<float>{{a.v[0] + b.v[0], a.v[1] + b.v[1], a.v[2] + b.v[2], a.v[3] + b.v[3]}};
  };
  if (p.swiglu) {
    if (task.start != nullptr && row < task.rows) {
      sum = add(load_four(task.start + row * p.lds + panel * kPanel + column), sum);
    }
    Four<float> up;
#pragma unroll
    for (int i = 0; i < 4; ++i) up.v[i] = __shfl_down_sync(kAllLanes, sum.v[i], kUp, 2 * kUp);
    if (row >= task.rows || column >= kHalf) return;
    const float weight = p.weight[task.first_row + row];
    Four<float> h;
#pragma unroll
    for (int i = 0; i < 4; ++i) h.v[i] = sum.v[i] * sigmoid_of(sum.v[i]) * up.v[i] * weight;
    *reinterpret_cast<Four<float>*>(task.y + row * p.ldy + panel * kHalf + column) = h;
    return;
  }
  const int first = panel * kPanel + column;
  if (row >= task.rows || first >= task.w.n) return;
  const std::int64_t at = row * p.ldy + first;
  if (p.accumulate) sum = add(load_four(task.y + at), sum);
  if (p.bias != nullptr) sum = add(sum, load_four(p.bias + first));
  if (p.residual != nullptr) sum = add(load_four(p.residual + at), sum);
  *reinterpret_cast<Four<float>*>(task.y + at) = sum;
}

}  // namespace dsm::kernels::cuda
