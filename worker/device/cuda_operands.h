// Products of the CUDA backend whose rows are made into operands first, a part of the tiles at a
// time: the memory for that is bounded, and stays in the GPU's second cache. For the backend's
// thread.
#pragma once

#include "kernels/cuda/product_wide.h"
#include "kernels/cuda/product_wide_fp8.h"
#include "worker/device/cuda_memory.h"

namespace dsm::device {

class CudaOperands {
 public:
  explicit CudaOperands(const Stream& stream) : stream_(stream) {}

  // As kernels::cuda::products().
  void multiply(kernels::cuda::Products launch, kernels::DType dtype);
  // As kernels::cuda::wide_products(), whose x_operands are made unless they are there, or where
  // params are exact as exact_products(), of which they always are.
  void multiply(kernels::cuda::WideProducts launch);
  // As kernels::cuda::wide_fp8_products(), likewise.
  void multiply(kernels::cuda::WideFp8Products launch);

  // As Scratch::give_back().
  void give_back_scratch() { operands_.give_back(); }

 private:
  // Calls `part` with so many tiles at a time, each of tile_bytes, that operands have most_bytes.
  template <class Part>
  void in_parts(kernels::cuda::Products& launch, std::int64_t tile_bytes, std::int64_t most_bytes,
                const Part& part);

  const Stream& stream_;
  Scratch operands_;
};

}  // namespace dsm::device
