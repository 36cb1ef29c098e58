// Products of many rows by cuBLASLt, for the loose mode: its kernels come nearer to the tensor
// cores' peak than ours. It wants both sides row by row in BF16, so a weight's panels are unpacked
// for each product; product_plan.h says from how many rows on that pays. Large products are done in
// parts, so that scratch memory is bounded.
//
// For the CUDA backend's thread.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "kernels/cuda/product_plan.h"
#include "worker/device/cublas_lt.h"
#include "worker/device/cuda_memory.h"

namespace dsm::device {

class LibraryProduct {
 public:
  // `capability`: the GPU's, its major number. Throws CudaError.
  LibraryProduct(const CublasLt& library, int capability, const Stream& stream);

  // The parts to multiply; none if the task has too few rows, types that cannot be unpacked, or the
  // library no algorithm. Valid until the next call.
  std::span<const kernels::cuda::ProductPart> parts_of(const kernels::cuda::ProductTask& task);
  // sums[r, j] = row r of the task, which is a part, times column j, for all columns of its panels;
  // row r at sums + r * ld. Of `launch` ldx and token are read.
  void multiply(const kernels::cuda::Products& launch, const kernels::cuda::ProductTask& task,
                float* sums, std::int64_t ld);

  // As Scratch::give_back().
  void give_back_scratch() {
    workspace_.give_back();
    weights_.give_back();
    rows_.give_back();
  }

 private:
  using Handle = std::unique_ptr<void, CublasLt::Status (*)(void*)>;
  // Columns, inputs and rows of a product, padded.
  struct Shape {
    std::int64_t n = 0;
    std::int64_t k = 0;
    std::int64_t rows = 0;
    auto operator<=>(const Shape&) const = default;
  };
  static Shape shape_of(int panels, int k, int rows);
  struct Layouts;
  std::optional<CublasLt::Algorithm> find_algorithm(const Shape& shape);
  const std::optional<CublasLt::Algorithm>& algorithm(const Shape& shape);

  const CublasLt& api_;
  const int capability_;
  const Stream& stream_;
  Handle library_;
  Handle product_;
  Handle preference_;
  Scratch workspace_;
  std::map<Shape, std::optional<CublasLt::Algorithm>> algorithms_;
  std::vector<kernels::cuda::ProductPart> parts_;
  Scratch weights_;  // [n, k] in BF16
  Scratch rows_;     // [rows, k] in BF16
};

}  // namespace dsm::device
