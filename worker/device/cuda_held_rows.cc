#include "worker/device/cuda_held_rows.h"

#include <stdexcept>

#include "kernels/cuda/splits.h"

namespace dsm::device {

using namespace kernels;  // parameter structs

namespace {

// Of each of the two: 2,048 rows of 32,768 inputs.
constexpr std::int64_t kMostBytes = std::int64_t{128} << 20;

int stages_of(int width) {
  return cuda::wide_stages({.k = width});
}

}  // namespace

bool CudaHeldRows::may_hold(int rows, int width) {
  return cuda::wide_rows_bytes(rows, stages_of(width)) <= kMostBytes;
}

cuda::WideRows CudaHeldRows::hold(Of of, const float* x, int rows, int width, int products) {
  if (products_ != 0)
    throw std::logic_error("CUDA backend: rows are held that no product has read");
  Scratch& memory = of == Of::kHidden ? hidden_ : mlp_;
  const int stages = stages_of(width);
  const auto bytes = static_cast<std::size_t>(cuda::wide_rows_bytes(rows, stages));
  rows_ = {memory.at_least(bytes, stream_), stages};
  x_ = x;
  count_ = rows;
  products_ = products;
  return rows_;
}

cuda::WideRows CudaHeldRows::take(const float* x, int rows, int width) {
  if (products_ == 0) return {};
  if (x != x_ || rows != count_ || stages_of(width) != rows_.stages) {
    throw std::logic_error("CUDA backend: rows are held for another product");
  }
  --products_;
  return rows_;
}

}  // namespace dsm::device
