// Rows that the next products alone read, kept as their operands (kernels/cuda/wide_rows.h) instead
// of as values: what makes them writes a half as many bytes, and no kernel rounds them anew. For
// the backend's thread.
#pragma once

#include <cstdint>

#include "kernels/cuda/wide_rows.h"
#include "worker/device/cuda_memory.h"

namespace dsm::device {

class CudaHeldRows {
 public:
  explicit CudaHeldRows(const Stream& stream) : stream_(stream) {}

  // What has made them: norms and attention, or SwiGLU of a product that takes those.
  enum class Of : std::uint8_t { kHidden, kMlp };

  // Whether there is memory for so many.
  static bool may_hold(int rows, int width);
  // Memory for `rows` rows of `width` inputs, which stand for x until so many products have taken
  // them, as many of their inputs as these have. What was held before has been.
  kernels::cuda::WideRows hold(Of of, const float* x, int rows, int width, int products);
  // By each product: the rows that stand for its x, if any do. Throws std::logic_error if it is not
  // the product that the rows are held for.
  kernels::cuda::WideRows take(const float* x, int rows, int width);

  // A step begins: the one before may have failed before all products had taken what it held.
  void forget() { products_ = 0; }

  // As Scratch::give_back().
  void give_back_scratch() {
    hidden_.give_back();
    mlp_.give_back();
  }

 private:
  const Stream& stream_;
  Scratch hidden_;
  Scratch mlp_;
  kernels::cuda::WideRows rows_ = {};
  const float* x_ = nullptr;
  int count_ = 0;
  int products_ = 0;  // that are still to take them
};

}  // namespace dsm::device
