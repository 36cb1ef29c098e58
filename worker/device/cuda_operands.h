// Products of the CUDA backend whose rows are made into operands first, a part of the tiles at a
// time: the memory for that is bounded, and stays in the GPU's second cache. For the backend's
// thread.
#pragma once

#include "kernels/cuda/launch.h"
#include "worker/device/cuda_memory.h"

namespace dsm::device {

class CudaOperands {
 public:
  explicit CudaOperands(const Stream& stream) : stream_(stream) {}

  // As kernels::cuda::products().
  void multiply(kernels::cuda::Products launch, kernels::DType dtype);

  // As Scratch::give_back().
  void give_back_scratch() { operands_.give_back(); }

 private:
  const Stream& stream_;
  Scratch operands_;
};

}  // namespace dsm::device
