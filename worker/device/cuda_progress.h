// How far the work on a stream has got (Backend::moves()): every few norms, of which a layer has
// two or more, a kernel counts up in memory of the host, also in steps that are recorded. So a long
// step is told from one that hangs.
#pragma once

#include <cstdint>

#include "worker/device/cuda_memory.h"

namespace dsm::device {

class CudaProgress {
 public:
  explicit CudaProgress(const Stream& stream);

  // A norm has been put on the stream. For the backend's thread.
  void norm();
  // Any thread may ask.
  std::uint64_t moves() const;

 private:
  const Stream& stream_;
  DeviceMemory count_;
  HostMemory seen_;
  int norms_ = 0;  // since the last count
};

}  // namespace dsm::device
