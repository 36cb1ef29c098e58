// How blocks of the megakernel share out an operator (megakernel.cu).
#pragma once

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/megakernel.h"

namespace dsm::kernels::cuda {

// A copy, in registers: what is in shared memory could change with everything that is stored there.
template <class T>
__device__ __forceinline__ T params_of(const MegakernelOp& op) {
  return *reinterpret_cast<const T*>(op.params);
}

// The block's first unit of those that are shared out from block `first` on.
__device__ __forceinline__ int first_unit(int first) {
  const int mine = static_cast<int>(blockIdx.y) - first;
  return mine < 0 ? mine + static_cast<int>(gridDim.y) : mine;
}

// The block's units of an operator: unit(number) for each.
template <class Unit>
__device__ __forceinline__ void each_unit(const MegakernelOp& op, const Unit& unit) {
  for (int number = first_unit(op.first); number < op.units;
       number += static_cast<int>(gridDim.y)) {
    unit(number);
    __syncthreads();  // what it has in shared memory has been read
  }
}

}  // namespace dsm::kernels::cuda
