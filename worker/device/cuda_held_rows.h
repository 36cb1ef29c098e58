// Rows that the next products alone read, kept as their operands (kernels/cuda/wide_rows.h, and in
// FP8 WideFp8Rows of product_wide_fp8.h) instead of as values: what makes them writes a half or a
// quarter as many bytes, and no kernel rounds them anew. For the backend's thread.
#pragma once

#include <cstdint>

#include "kernels/cuda/product_wide_fp8.h"
#include "kernels/cuda/wide_rows.h"
#include "worker/device/cuda_memory.h"

namespace dsm::device {

class CudaHeldRows {
 public:
  explicit CudaHeldRows(const Stream& stream) : stream_(stream) {}

  // What has made them: norms and attention, SwiGLU of a product that takes those, or rounding of
  // rows that were not held when they were made. Each has memory of its own.
  enum class Of : std::uint8_t { kHidden, kMlp, kRounded };

  // Whether there is memory for so many.
  static bool may_hold(int rows, int width, kernels::RowsTaken taken);
  // Memory for `rows` rows of `width` inputs, which stand for x until so many products have taken
  // them, as many of their inputs as these have. What was held before has been.
  kernels::cuda::WideRows hold(Of of, const float* x, int rows, int width, int products);
  // The same of rows in FP8, which stand for what x becomes when it is rounded.
  kernels::cuda::WideFp8Rows hold_fp8(Of of, const float* x, int rows, int width, bool power_of_two,
                                      int products);
  // x is rounded and becomes y. Whether that has been done, by what has made rows that are held.
  bool rounded(const float* x, const float* y, int rows);

  struct Taken {
    void* data = nullptr;
    bool fp8 = false;
  };
  // By each product: the rows that stand for its x, if any do. Throws std::logic_error if it is not
  // the product that the rows are held for.
  Taken take(const float* x, int rows, int width);

  // A step begins: the one before may have failed before all products had taken what it held.
  void forget() { products_ = 0; }

  // As Scratch::give_back().
  void give_back_scratch() {
    for (Scratch& scratch : memory_) scratch.give_back();
  }

 private:
  void* begin(Of of, bool fp8, int rows, int stages, int products);

  const Stream& stream_;
  Scratch memory_[3];  // by Of
  Taken rows_ = {};
  int stages_ = 0;
  const float* made_of_ = nullptr;  // FP8: rows before they are rounded
  const float* x_ = nullptr;        // what they stand for
  int count_ = 0;
  int products_ = 0;  // that are still to take them
};

}  // namespace dsm::device
