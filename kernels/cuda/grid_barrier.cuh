// A barrier of all thread blocks of a kernel that run side by side (launch_together()).
#pragma once

#include <cstdint>

#include "kernels/cuda/device.cuh"

namespace dsm::kernels::cuda {

// In two halves, so that a block may ask for what nobody writes in between. By all threads of all
// blocks, whose number is gridDim.y.
class GridBarrier {
 public:
  // `word` is zero before its first barrier and belongs to one kernel at a time: a barrier turns
  // its highest bit and leaves the others zero.
  __device__ explicit GridBarrier(std::uint32_t* word) : word_(word) {}

  // What the block has written will be there for those who wait.
  __device__ __forceinline__ void arrive() {
    __syncthreads();
    if (threadIdx.x != 0) return;
    const std::uint32_t others = gridDim.y - 1;
    __threadfence();  // for all of the block
    was_ = atomicAdd(word_, blockIdx.y == 0 ? 0x80000000U - others : 1U);
  }
  // What all blocks wrote before they arrived is there.
  __device__ __forceinline__ void wait() {
    if (threadIdx.x == 0) {
      wait_for_turn(word_, was_);
      __threadfence();  // for all of the block: what its first cache has is old
    }
    __syncthreads();
  }

 private:
  std::uint32_t* word_;
  std::uint32_t was_ = 0;  // of thread 0
};

}  // namespace dsm::kernels::cuda
