// The matrix products of the CUDA backend: which kernel takes which of them, and their scratch
// memory. For the backend's thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/product_plan.h"
#include "worker/device/cublas_lt.h"
#include "worker/device/cuda_held_rows.h"
#include "worker/device/cuda_megakernel.h"
#include "worker/device/cuda_memory.h"
#include "worker/device/cuda_operands.h"
#include "worker/device/cuda_span_sums.h"
#include "worker/device/kernel_choice.h"
#include "worker/device/library_product.h"

namespace dsm::device {

// So many products alone read some rows, and how (RmsNormParams).
struct NextProducts {
  int products = 0;
  kernels::RowsTaken taken = kernels::RowsTaken::kAsTheyAre;

  bool rounds() const { return taken != kernels::RowsTaken::kAsTheyAre; }
};

class CudaProducts {
 public:
  // `exact`: activations as two BF16 terms.
  CudaProducts(const cudaDeviceProp& gpu, bool exact, const KernelChoice& kernels, Lists& lists,
               const Stream& stream, CudaOperands& operands, CudaMegakernel& megakernel)
      : processors_(gpu.multiProcessorCount),
        capability_(gpu.major),
        exact_(exact),
        kernels_(kernels),
        lists_(lists),
        stream_(stream),
        operands_(operands),
        megakernel_(megakernel) {}

  // Products of many rows are the library's from now on. For the log: whether it is there.
  std::string use_library(const FoundCublasLt& library);

  // There may be products by weights of this type.
  void expect(kernels::DType dtype) { fp8_ = fp8_ || dtype == kernels::DType::kF8E4M3; }
  // Whether products of so many rows may be the library's.
  bool may_use_library(int rows) const;

  // Whether kernels multiply FP8 by FP8.
  bool takes_fp8() const { return capability_ >= 9; }

  // The products of tasks, whose list is used up, and what `launch` says is done with the sums.
  // `next`: what reads y of a SwiGLU.
  void run(std::vector<kernels::cuda::ProductTask>& tasks, kernels::cuda::Products launch,
           const NextProducts& next = {});

  // Whether rows that the next products alone read are held for them: those by weights in BF16 or
  // integers (takes_wide() of stage_weights.h), or of rounded rows by weights in FP8.
  bool may_hold(int rows, int width, const NextProducts& next) const;
  // Memory for them, instead of x, which a norm or attention makes.
  kernels::cuda::WideRows hold_hidden(const float* x, int rows, int width,
                                      const NextProducts& next) {
    return held_.hold(CudaHeldRows::Of::kHidden, x, rows, width, next.products);
  }
  kernels::cuda::WideFp8Rows hold_hidden_fp8(const float* x, int rows, int width,
                                             const NextProducts& next) {
    return hold_fp8(CudaHeldRows::Of::kHidden, x, rows, width, next);
  }
  // Rounding of rows in FP32: whether what made them has done it, and else memory for what it
  // gives, if next products alone read that.
  bool are_rounded(const kernels::QuantiseParams& p) { return held_.rounded(p.x, p.y, p.rows); }
  kernels::cuda::WideFp8Rows hold_rounded(const kernels::QuantiseParams& params);

  // As CudaHeldRows::forget().
  void forget_held() { held_.forget(); }

  // As Scratch::give_back().
  void give_back_scratch() {
    span_sums_.give_back();
    held_.give_back_scratch();
    if (library_ != nullptr) library_->give_back_scratch();
  }

 private:
  // Which rows are the kernel's for many, by weights of this type, and the same with both sides in
  // FP8.
  kernels::cuda::RowRange wide_rows(kernels::DType dtype) const;
  kernels::cuda::RowRange wide_fp8_rows() const;
  void by_wide_kernel(std::vector<kernels::cuda::ProductTask>& tasks, kernels::DType dtype,
                      kernels::cuda::Products launch, const NextProducts& next);
  void by_wide_fp8_kernel(std::vector<kernels::cuda::ProductTask>& tasks,
                          kernels::cuda::Products launch, const NextProducts& next);
  void by_library(std::vector<kernels::cuda::ProductTask>& tasks,
                  const kernels::cuda::Products& launch);
  kernels::cuda::WideFp8Rows hold_fp8(CudaHeldRows::Of of, const float* x, int rows, int width,
                                      const NextProducts& next) {
    return held_.hold_fp8(of, x, rows, width,
                          next.taken == kernels::RowsTaken::kRoundedByPowersOfTwo, next.products);
  }
  // Of chosen_.
  void by_kernel(kernels::cuda::Products launch, kernels::DType dtype);
  void plan(kernels::cuda::Products& launch, kernels::DType dtype);
  // Sends plan_.
  void take_plan(kernels::cuda::Products& launch);

  const int processors_;
  const int capability_;  // its first number
  const bool exact_;
  const KernelChoice kernels_;
  bool fp8_ = false;  // some weights are
  Lists& lists_;
  const Stream& stream_;
  CudaOperands& operands_;
  CudaMegakernel& megakernel_;
  std::unique_ptr<LibraryProduct> library_;
  std::vector<kernels::cuda::ProductTask> chosen_;
  kernels::cuda::ProductPlan plan_;
  CudaSpanSums span_sums_{stream_};
  CudaHeldRows held_{stream_};
};

}  // namespace dsm::device
