// Rows that are rounded to FP8 where they are made, as operands of the next product
// (WideFp8Rows of product_wide_fp8.h).
#pragma once

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/fragments.h"
#include "kernels/cuda/product_wide_fp8.h"

namespace dsm::kernels::cuda {

inline constexpr int kFp8StageFours = kFp8StageInputs / 4;

// The stage of a row's tile.
__device__ __forceinline__ unsigned char* fp8_stage_of(const WideFp8Rows& to, int row, int stage) {
  const std::int64_t at = static_cast<std::int64_t>(row / kFp8HeldRows) * to.stages + stage;
  return static_cast<unsigned char*>(to.data) + at * wide_fp8_stage_bytes(kFp8HeldRows);
}
// `row` of the tile.
__device__ __forceinline__ void put_fp8_scale(unsigned char* stage, int row, float scale) {
  auto* scales = reinterpret_cast<float*>(stage + kFp8HeldRows * kFp8StageInputs);
  scales[fp8_scale_place(row)] = scale;
}
__device__ __forceinline__ std::uint32_t e4m3_four(const Four<float>& x, float scale) {
  return e4m3_pair(x.v[0] / scale, x.v[1] / scale) | e4m3_pair(x.v[2] / scale, x.v[3] / scale)
                                                         << 16;
}

// A stage's inputs of a row, by a warp: lane l has the four from 4 l on. As quantise() rounds them.
__device__ __forceinline__ void put_fp8_block(const WideFp8Rows& to, int row, int stage,
                                              const Four<float>& x) {
  static_assert(kFp8StageFours == 32);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float largest = 0.0F;
#pragma unroll
  for (const float v : x.v) largest = fmaxf(largest, fabsf(v));
  for (int step = 16; step > 0; step /= 2) {
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, step));
  }
  const float scale = activation_scale_of(largest, to.power_of_two);
  unsigned char* at = fp8_stage_of(to, row, stage);
  const int in_tile = row % kFp8HeldRows;
  reinterpret_cast<std::uint32_t*>(at)[fp8_word_at(in_tile, lane)] = e4m3_four(x, scale);
  if (lane == 0) put_fp8_scale(at, in_tile, scale);
}

}  // namespace dsm::kernels::cuda
