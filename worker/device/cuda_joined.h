// The ranks that a CUDA backend has joined in an epoch, and what the operators between ranks put on
// its stream. For the backend's thread.
#pragma once

#include <memory>
#include <string>

#include "worker/comm/communicator.h"
#include "worker/device/backend.h"
#include "worker/device/cuda_memory.h"
#include "worker/device/cuda_ranks.h"

namespace dsm::device {

class CudaJoined {
 public:
  CudaJoined(Stream& stream, Lists& lists) : stream_(stream), lists_(lists) {}

  // As Backend's functions.
  std::string join(comm::Communicator& ranks, const JoinOptions& options);
  void add(comm::Communicator& ranks, const RankSumParams& params);
  void gather(comm::Communicator& ranks, const RankGatherParams& params);
  void gather_columns(comm::Communicator& ranks, const RankColumnsParams& params);
  // That steps which repeat can be recorded: as long as no ranks are joined, too.
  bool records() const { return ranks_ == nullptr || ranks_->shared() != nullptr; }
  // What joined ranks have to do together for it; null: nothing.
  SharedSteps* shared() const { return ranks_ != nullptr ? ranks_->shared() : nullptr; }
  // The epoch is over.
  void leave();

 private:
  CudaRanks& joined() const;

  Stream& stream_;
  Lists& lists_;
  std::unique_ptr<CudaRanks> ranks_;  // of the epoch; null: none has been joined
};

}  // namespace dsm::device
