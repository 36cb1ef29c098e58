// The CUDA backend's products of experts whose groups stay on the GPU (kernels/cuda/experts.h): the
// host knows how many slots there are and not whose they are, so thread blocks are started for the
// most tiles that there can be.
#pragma once

#include "kernels/cuda/experts.h"
#include "worker/device/cuda_memory.h"
#include "worker/device/cuda_operands.h"
#include "worker/device/cuda_span_sums.h"

namespace dsm::device {

class CudaExperts {
 public:
  // `processors`, `exact`: as plan_products() and Products have them.
  CudaExperts(const Stream& stream, Lists& lists, CudaOperands& operands, int processors,
              bool exact)
      : stream_(stream),
        lists_(lists),
        operands_(operands),
        processors_(processors),
        exact_(exact) {}

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
    bool wide = true;   // four inputs of each can be loaded at a time
    bool whole = true;  // none begins inside of a block of scales
  };
  static void add(const kernels::PackedMatrix& w, int offset, Shape& shape);
  void products(kernels::cuda::ExpertTasks tasks, kernels::cuda::Products products,
                const kernels::GroupExpertsParams& routing, const Shape& shape);

  const Stream& stream_;
  Lists& lists_;
  CudaOperands& operands_;
  int processors_;
  bool exact_;
  Scratch plan_;  // tasks and tiles
  CudaSpanSums span_sums_{stream_};
};

}  // namespace dsm::device
