// Where the parts of a product's sums meet that thread blocks have apart (kernels/cuda/launch.h).
// For the backend's thread.
#pragma once

#include "kernels/cuda/launch.h"
#include "worker/device/cuda_memory.h"

namespace dsm::device {

class CudaSpanSums {
 public:
  explicit CudaSpanSums(const Stream& stream) : stream_(stream) {}

  // For the sums of launch.spans spans; launch has its tiles, panels and rows.
  void give(kernels::cuda::Products& launch);

  // As Scratch::give_back().
  void give_back() {
    sums_.give_back();
    met_.give_back();
    met_bytes_ = 0;
  }

 private:
  const Stream& stream_;
  Scratch sums_;
  Scratch met_;
  std::size_t met_bytes_ = 0;  // that are zero
};

}  // namespace dsm::device
