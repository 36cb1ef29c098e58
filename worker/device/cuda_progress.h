// How far the work on a stream has got (Backend::moves()): every few norms, of which a layer has
// two or more, a kernel counts up in memory of the host, also in steps that are recorded. So a long
// step is told from one that hangs.
#pragma once

#include <cstdint>

#include "worker/device/cuda_megakernel.h"
#include "worker/device/cuda_memory.h"

namespace dsm::device {

class CudaProgress {
 public:
  CudaProgress(const Stream& stream, CudaMegakernel& megakernel);

  // A norm has been put on the stream. For the backend's thread.
  void norm();
  // The next norm counts, so that a step which is repeated counts at the same ones each time.
  void begin() { norms_ = 0; }
  // Any thread may ask.
  std::uint64_t moves() const;

 private:
  const Stream& stream_;
  CudaMegakernel& megakernel_;
  DeviceMemory count_;
  HostMemory seen_;
  unsigned norms_ = 0;  // since one that counted, itself among them
};

}  // namespace dsm::device
