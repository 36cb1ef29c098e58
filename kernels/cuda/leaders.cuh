// The best of what the threads of a block have found (draw.h): the same in any order.
#pragma once

#include "kernels/cuda/device.cuh"
#include "kernels/draw.h"

namespace dsm::kernels::cuda {

template <class T>
__device__ Leader<T> leader_of_warp(Leader<T> leader) {
  for (int step = 16; step > 0; step /= 2) {
    const T value = __shfl_xor_sync(0xffffffffU, leader.value, step);
    const std::int32_t token = __shfl_xor_sync(0xffffffffU, leader.token, step);
    leader.meet(value, token);
  }
  return leader;
}

// Of all threads, which are `Warps` warps; the same on all of them. Static as its shared variables
// are to the emulator, which has them in one section with those of kernels.
template <int Warps, class T>
static __device__ Leader<T> leader_of_block(Leader<T> leader) {
  __shared__ T values[Warps];
  __shared__ std::int32_t tokens[Warps];
  leader = leader_of_warp(leader);
  __syncthreads();  // what was there before has been read
  if (threadIdx.x % 32 == 0) {
    values[threadIdx.x / 32] = leader.value;
    tokens[threadIdx.x / 32] = leader.token;
  }
  __syncthreads();
  for (int w = 0; w < Warps; ++w) leader.meet(values[w], tokens[w]);
  return leader;
}

}  // namespace dsm::kernels::cuda
