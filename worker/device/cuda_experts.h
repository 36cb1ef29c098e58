// The CUDA backend's products of experts whose groups stay on the GPU (kernels/cuda/experts.h): the
// host knows how many slots there are and not whose they are, so thread blocks are started for the
// most tiles that there can be.
#pragma once

#include "kernels/cuda/experts.h"
#include "kernels/cuda/product_plan.h"
#include "worker/device/cuda_megakernel.h"
#include "worker/device/cuda_memory.h"
#include "worker/device/cuda_operands.h"
#include "worker/device/cuda_span_sums.h"
#include "worker/device/kernel_choice.h"

namespace dsm::device {

class CudaExperts {
 public:
  // As CudaProducts'. There is no library for groups whose sizes the host does not know: where it
  // is asked for, these products are those of the kernels for few rows.
  CudaExperts(const cudaDeviceProp& gpu, bool exact, const KernelChoice& kernels, Lists& lists,
              const Stream& stream, CudaOperands& operands, CudaMegakernel& megakernel)
      : stream_(stream),
        lists_(lists),
        operands_(operands),
        megakernel_(megakernel),
        processors_(gpu.multiProcessorCount),
        capability_(gpu.major),
        exact_(exact),
        kernels_(kernels) {}

  // The slots of all groups but the first, which is an ordinary product.
  void gate_up(const kernels::GateUpParams& params);
  // sums [slots, n] of the same slots.
  void row_parallel(const kernels::RowParallelParams& params, float* sums);

  // As Scratch::give_back().
  void give_back_scratch() {
    plan_.give_back();
    span_sums_.give_back();
  }

 private:
  // What the experts' weights of one type have in common.
  struct Shape {
    int experts = 0;
    int panels = 0;
    int spans = 0;
    int stages = 0;
    bool wide = true;    // four inputs of each can be loaded at a time
    bool whole = true;   // none begins inside of a block of scales
    bool staged = true;  // takes_wide() of each
    kernels::PackedMatrix first;
    int offset = 0;     // of the first
    bool alike = true;  // all have the first's shape and offset
  };
  void add(const kernels::PackedMatrix& w, int offset, Shape& shape) const;
  // The fewest rows that the kernel for many takes; 0: it takes none.
  int wide_from(kernels::DType dtype) const;
  void products(kernels::cuda::ExpertTasks tasks, kernels::cuda::Products products,
                const kernels::GroupExpertsParams& routing, const Shape& shape);
  // Makes room for tasks and tiles, of which the products say the same.
  void give_plan(kernels::cuda::ExpertTasks& tasks, kernels::cuda::Products& products);

  const Stream& stream_;
  Lists& lists_;
  CudaOperands& operands_;
  CudaMegakernel& megakernel_;
  const int processors_;
  const int capability_;  // its first number
  const bool exact_;
  const KernelChoice kernels_;
  Scratch plan_;  // tasks and tiles
  CudaSpanSums span_sums_{stream_};
};

}  // namespace dsm::device
