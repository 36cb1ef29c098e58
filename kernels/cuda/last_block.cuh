// Work that the last thread block to come ends for all of them, so that it needs no kernel of its
// own.
#pragma once

#include <cstdint>

#include "kernels/cuda/device.cuh"

namespace dsm::kernels::cuda {

// Whether this thread block is the last of `blocks` that come to *met, after which it is zero
// again: what they all wrote before is there. By all threads.
__device__ __forceinline__ bool last_to_meet(std::uint32_t* met, int blocks, bool& last) {
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();  // for all of them
    last = atomicAdd(met, 1U) + 1 == static_cast<std::uint32_t>(blocks);
    if (last) *met = 0;
    __threadfence();
  }
  __syncthreads();
  return last;
}

}  // namespace dsm::kernels::cuda
