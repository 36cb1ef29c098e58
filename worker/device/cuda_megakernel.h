// Steps of decoding of the CUDA backend as one kernel (kernels/cuda/megakernel.h): while it is
// open, operators that the kernel has are put off, and started together as soon as anything else is
// put on the stream, or at the end. For the backend's thread.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cuda/megakernel_plan.h"
#include "worker/device/cuda_memory.h"
#include "worker/device/cuda_span_sums.h"

namespace dsm::device {

class CudaMegakernel {
 public:
  // `tokens`: of the largest steps for which it is opened; 0: it never is. `exact` as
  // CudaProducts'.
  CudaMegakernel(const cudaDeviceProp& gpu, bool exact, int tokens, const Stream& stream,
                 Lists& lists);
  CudaMegakernel(const CudaMegakernel&) = delete;
  CudaMegakernel& operator=(const CudaMegakernel&) = delete;
  ~CudaMegakernel();

  // Open as long as it lives, for steps of so many tokens; what was put off is started at its end.
  // Where it ends by an exception, what was put off is forgotten.
  class Opened {
   public:
    Opened(CudaMegakernel& megakernel, int tokens);
    Opened(const Opened&) = delete;
    Opened& operator=(const Opened&) = delete;
    ~Opened();
    void start() { megakernel_.start(); }

   private:
    CudaMegakernel& megakernel_;
  };

  // Puts an operator off; false: it is the caller's.
  bool norm(const kernels::RmsNormParams& params);
  bool kv_write(const kernels::KvWriteParams& params);
  bool kv_write_heads(const kernels::KvWriteHeadsParams& params);
  bool rope_query(const kernels::RopeQueryParams& params);
  bool attention(const kernels::cuda::AttentionLaunch& launch);
  bool router(const kernels::RouterParams& params);
  bool group_experts(const kernels::GroupExpertsParams& params);
  bool combine(const kernels::cuda::CombineParams& params);
  bool count_move(const kernels::cuda::CountMove& params);
  // As they were planned, but for the spans that a block goes through and where their sums meet.
  bool products(const kernels::cuda::Products& launch,
                std::span<const kernels::cuda::ProductTask> tasks);
  // Of experts by weights of the type and shape of `first`, whose groups were put off. `launch` has
  // what all products have in common.
  bool expert_products(const kernels::cuda::ExpertTasks& tasks,
                       const kernels::cuda::Products& launch,
                       const kernels::GroupExpertsParams& routing,
                       const kernels::PackedMatrix& first, int offset);

  // As Scratch::give_back().
  void give_back_scratch();

 private:
  // Where the sums of a product meet that may be beside others.
  void give_sums(kernels::cuda::Products& launch);
  // Puts what was put off on the stream.
  void start();

  const bool exact_;
  const int tokens_;
  const int blocks_;
  const Stream& stream_;
  Lists& lists_;
  DeviceMemory barrier_;
  DeviceMemory tiles_;
  bool open_ = false;
  const kernels::Group* grouped_ = nullptr;  // whose tiles are in tiles_
  kernels::cuda::MegakernelPlan plan_;
  std::array<CudaSpanSums, 3> sums_;  // in turn
  std::size_t turn_ = 0;
};

}  // namespace dsm::device
