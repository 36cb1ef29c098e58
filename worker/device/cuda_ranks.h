// How the ranks of an epoch put together what each has of a sum, on the streams of their backends:
// by NCCL and kernels of our own, or, where ranks share a GPU, which NCCL does not do, by copies
// that events put in order.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "worker/comm/communicator.h"
#include "worker/device/backend.h"
#include "worker/device/cuda_memory.h"
#include "worker/device/shared_steps.h"
#include "worker/device/sum_ways.h"

namespace dsm::device {

class CudaRanks {
 public:
  virtual ~CudaRanks() = default;
  // For the log.
  virtual std::string name() const = 0;
  // These two are collective and put on the stream. parts[r * count ..) = rank r's `mine`.
  virtual void all_gather(const float* mine, float* parts, std::size_t count) = 0;
  // As Backend::add_over_ranks().
  virtual void add(const RankSumParams& params) = 0;
  // As Backend::gather_columns(), in a step of shared(); false: it is put together from parts that
  // are gathered.
  virtual bool put_columns(const RankColumnsParams& /*params*/) { return false; }
  // What a step that repeats has of them can be recorded, by all ranks alike. Null: it cannot.
  virtual SharedSteps* shared() { return nullptr; }
  // Returns when what is on the stream is done. Throws CommError when a rank is lost.
  virtual void wait() = 0;
};

struct JoinOptions {
  int gpu = 0;  // this rank's, which is current
  // Sums are added in the order of the ranks' numbers, else in any that is the same on all ranks.
  bool exact = true;
  AllReduce all_reduce = AllReduce::kAuto;
};
// Collective. `ranks` and the stream outlive what is made. Throws CommError, and DeviceError where
// NCCL is needed and missing, or GPUs that reach each other's memory are wanted and are none.
std::unique_ptr<CudaRanks> join_ranks(comm::Communicator& ranks, const JoinOptions& options,
                                      const Stream& stream);

// y = residual + sum on the stream.
void add_parts(const kernels::TreeSumParams& params, const Stream& stream);

}  // namespace dsm::device
