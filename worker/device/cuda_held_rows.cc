#include "worker/device/cuda_held_rows.h"

#include <stdexcept>

#include "kernels/cuda/splits.h"

namespace dsm::device {

using namespace kernels;  // parameter structs

namespace {

// Of each of them: 2,048 rows of 32,768 inputs in BF16.
constexpr std::int64_t kMostBytes = std::int64_t{128} << 20;

int stages_of(int width, bool fp8) {
  return fp8 ? cuda::splits_of({.k = width}) : cuda::wide_stages({.k = width});
}

std::int64_t bytes_of(int rows, int stages, bool fp8) {
  return fp8 ? cuda::wide_fp8_rows_bytes(rows, stages) : cuda::wide_rows_bytes(rows, stages);
}

}  // namespace

bool CudaHeldRows::may_hold(int rows, int width, RowsTaken taken) {
  const bool fp8 = taken != RowsTaken::kAsTheyAre;
  return bytes_of(rows, stages_of(width, fp8), fp8) <= kMostBytes;
}

void* CudaHeldRows::begin(Of of, bool fp8, int rows, int stages, int products) {
  if (products_ != 0)
    throw std::logic_error("CUDA backend: rows are held that no product has read");
  const auto bytes = static_cast<std::size_t>(bytes_of(rows, stages, fp8));
  rows_ = {memory_[static_cast<std::size_t>(of)].at_least(bytes, stream_), fp8};
  made_of_ = x_ = nullptr;
  count_ = rows;
  stages_ = stages;
  products_ = products;
  return rows_.data;
}

cuda::WideRows CudaHeldRows::hold(Of of, const float* x, int rows, int width, int products) {
  const int stages = stages_of(width, false);
  void* data = begin(of, false, rows, stages, products);
  x_ = x;
  return {data, stages};
}

cuda::WideFp8Rows CudaHeldRows::hold_fp8(Of of, const float* x, int rows, int width,
                                         bool power_of_two, int products) {
  const int stages = stages_of(width, true);
  void* data = begin(of, true, rows, stages, products);
  made_of_ = x;
  return {data, stages, power_of_two};
}

bool CudaHeldRows::rounded(const float* x, const float* y, int rows) {
  if (products_ == 0 || x != made_of_ || rows != count_) return false;
  x_ = y;
  return true;
}

CudaHeldRows::Taken CudaHeldRows::take(const float* x, int rows, int width) {
  if (products_ == 0) return {};
  if (x != x_ || rows != count_ || stages_of(width, rows_.fp8) != stages_) {
    throw std::logic_error("CUDA backend: rows are held for another product");
  }
  --products_;
  return rows_;
}

}  // namespace dsm::device
