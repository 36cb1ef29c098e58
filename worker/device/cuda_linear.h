// The operators of a CUDA backend that are products by weights: what they ask for as tasks of
// matrix products (cuda_products.h), and of experts' groups that stay on the GPU (cuda_experts.h).
// For the backend's thread.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/cuda/product_plan.h"
#include "worker/device/cuda_experts.h"
#include "worker/device/cuda_memory.h"
#include "worker/device/cuda_operands.h"
#include "worker/device/cuda_products.h"
#include "worker/device/kernel_choice.h"

namespace dsm::device {

class CudaLinear {
 public:
  // As CudaProducts'.
  CudaLinear(const cudaDeviceProp& gpu, bool exact, const KernelChoice& kernels, Lists& lists,
             const Stream& stream, CudaMegakernel& megakernel)
      : lists_(lists),
        stream_(stream),
        megakernel_(megakernel),
        operands_(stream),
        products_(gpu, exact, kernels, lists, stream, operands_, megakernel),
        experts_(gpu, exact, kernels, lists, stream, operands_, megakernel) {}

  CudaProducts& products() { return products_; }
  const CudaProducts& products() const { return products_; }

  // As Backend's functions.
  void linear(const kernels::LinearParams& params);
  void gate_up(const kernels::GateUpParams& params);
  void row_parallel(const kernels::RowParallelParams& params);

  // As Scratch::give_back().
  void give_back_scratch() {
    operands_.give_back_scratch();
    products_.give_back_scratch();
    experts_.give_back_scratch();
    slot_sums_.give_back();
  }

 private:
  template <class T>
  const T* list(const T* from, int count) {
    return lists_.put(from, static_cast<std::size_t>(count));
  }
  int group_tasks(const kernels::Group* groups, int count, const float* x, std::int64_t ldx,
                  float* y, std::int64_t ldy);
  void row_parallel_weights(const kernels::SegmentedMatrix* w, const kernels::Fp8Rows& rows);
  void add_up_slots(const kernels::RowParallelParams& params, const float* sums, int first_adapter);
  void routed_gate_up(const kernels::GateUpParams& params);
  void routed_row_parallel(const kernels::RowParallelParams& params);
  // Memory for so many slots of n sums.
  float* slot_sums(int slots, int n);
  // The products of tasks_.
  void run(const kernels::cuda::Products& launch, const NextProducts& next = {}) {
    products_.run(tasks_, launch, next);
  }

  Lists& lists_;
  const Stream& stream_;
  CudaMegakernel& megakernel_;
  CudaOperands operands_;
  CudaProducts products_;
  CudaExperts experts_;
  Scratch slot_sums_;
  std::vector<kernels::cuda::ProductTask> tasks_;
  kernels::cuda::TokenSlots token_slots_;
};

}  // namespace dsm::device
