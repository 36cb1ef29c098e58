// Ranks of one process, of which some share a GPU: for tests of tensor parallelism with fewer GPUs
// than ranks. Each leaves a copy of its part where the others find it and takes a copy of theirs;
// events put streams in order, and no thread waits for a GPU.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "worker/device/cuda_ranks.h"

namespace dsm::device {

// A place among the work on a stream, which other streams wait for.
class Mark {
 public:
  Mark() { check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "create an event"); }
  Mark(const Mark&) = delete;
  Mark& operator=(const Mark&) = delete;
  ~Mark() { cudaEventDestroy(event_); }

  // All that is on the stream so far is done.
  void record(const Stream& stream) { check(cudaEventRecord(event_, stream.get()), "record"); }
  // What comes on the stream does so after what was recorded last, if anything was.
  void hold(const Stream& stream) const {
    check(cudaStreamWaitEvent(stream.get(), event_, 0), "order streams");
  }

 private:
  cudaEvent_t event_ = nullptr;
};

// What the other ranks see of one. Doubled, since a rank may be one exchange ahead of another: it
// writes to a half again two exchanges later, after a barrier that all pass when they have put
// their copies of it on their streams.
struct VirtualRank {
  struct Half {
    Scratch memory;
    const float* part = nullptr;
    Mark written;
    Mark read;  // this rank has read the others' halves
  };
  int gpu = 0;
  std::array<Half, 2> halves;
};

class VirtualRanks final : public CudaRanks {
 public:
  // `all` by rank, the caller's own among them.
  VirtualRanks(comm::Communicator& ranks, std::vector<std::shared_ptr<VirtualRank>> all,
               const Stream& stream);
  ~VirtualRanks() override;

  std::string name() const override { return "copies on one GPU"; }
  void all_gather(const float* mine, float* parts, std::size_t count) override;
  void add(const RankSumParams& params) override;
  void wait() override;

 private:
  comm::Communicator& ranks_;
  const std::vector<std::shared_ptr<VirtualRank>> all_;
  VirtualRank& own_;
  const Stream& stream_;
  std::size_t half_ = 0;  // of the exchange in work
};

}  // namespace dsm::device
