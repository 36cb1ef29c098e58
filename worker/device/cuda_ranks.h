// How the ranks of an epoch put together what each has of a sum, on the streams of their backends:
// by NCCL, or, where ranks share a GPU, which NCCL does not do, by copies that events put in order.
#pragma once

#include <cstddef>
#include <memory>

#include "worker/comm/communicator.h"
#include "worker/device/cuda_memory.h"

namespace dsm::device {

class CudaRanks {
 public:
  virtual ~CudaRanks() = default;
  // These two are collective and put on the stream. parts[r * count ..) = rank r's `mine`.
  virtual void all_gather(const float* mine, float* parts, std::size_t count) = 0;
  // mine = the sum of all ranks' `mine`, in any order that is the same on all ranks. False: it is
  // no quicker than all_gather(), and nothing was done.
  virtual bool all_reduce(float* mine, std::size_t count) = 0;
  // Returns when what is on the stream is done. Throws CommError when a rank is lost.
  virtual void wait() = 0;
};

// Collective. `gpu` is this rank's, and current; `ranks` and the stream outlive what is made.
// Throws CommError, and DeviceError where NCCL is needed and missing.
std::unique_ptr<CudaRanks> join_ranks(comm::Communicator& ranks, int gpu, const Stream& stream);

}  // namespace dsm::device
