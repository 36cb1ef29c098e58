// Steps of decoding of the CUDA backend as one kernel (kernels/cuda/megakernel.h): while it is
// open, operators that the kernel has are put off, and started together as soon as anything else is
// put on the stream, or at the end. For the backend's thread.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/cuda/megakernel.h"
#include "worker/device/cuda_memory.h"

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
  bool kv_write_heads(const kernels::KvWriteHeadsParams& params);
  bool rope_query(const kernels::RopeQueryParams& params);
  bool attention(const kernels::cuda::AttentionLaunch& launch);
  bool count_move(const kernels::cuda::CountMove& params);
  // Whether it has products like this one, whose spans each block then goes through as said here.
  bool has(const kernels::cuda::Products& launch, kernels::DType dtype) const;
  int spans_each(const kernels::cuda::Products& launch) const;
  void product(const kernels::cuda::Products& launch, const kernels::cuda::ProductTask& task);

 private:
  void put_off(kernels::cuda::MegakernelOp op, bool waits = true);
  // The norm that was to be a product's, as an operator of its own.
  void put_norm_off();
  // Puts what was put off on the stream.
  void start();

  const bool exact_;
  const int tokens_;
  const int blocks_;
  const Stream& stream_;
  Lists& lists_;
  DeviceMemory barrier_;
  bool open_ = false;
  kernels::RmsNormParams norm_;  // may be a part of the next product; no rows: there is none
  std::vector<kernels::cuda::MegakernelOp> ops_;
  std::vector<kernels::cuda::MegakernelOp> started_;
};

}  // namespace dsm::device
