// Sums of ranks that are threads of this process and whose GPUs reach each other's memory, over
// NVLink or PCIe (kernels/cuda/all_reduce.h), and columns that they have parts of
// (kernels/cuda/peer_columns.h). Both can be recorded in a graph.
//
// A rank that is lost leaves the others' kernels waiting, but not for ever: they end when the
// ranks' communicator is aborted, or by themselves after the time that was given. What they have
// computed is then not to be used, which check() says.
//
// While a kernel waits, CUDA's calls that take or give back memory may wait for it (on the same GPU
// always; cudaFree() and cudaFreeHost() also for GPUs that reach each other's memory), and so may
// the first use of a kernel, which loads it. A rank that makes such a call before it has started
// what the others wait for stops them all until their patience ends. So join() ends on all ranks
// after the last of them has taken what it needs, and steps free nothing (Stream::let_go()).
// Whoever puts several ranks on one GPU takes memory before all meet, and adds after that.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <vector>

#include "kernels/cuda/peers.h"
#include "worker/comm/communicator.h"
#include "worker/device/cuda_memory.h"
#include "worker/device/sum_ways.h"

namespace dsm::device {

// A rank's places, which the other GPUs write to.
class PeerPlaces;

class PeerSum {
 public:
  // Collective; `gpus` of all ranks, this one's is current. Null, on all ranks: they are more
  // than kSegments, or some GPU cannot reach another one, or has no memory for it. `ranks` and the
  // stream outlive what is made.
  static std::unique_ptr<PeerSum> join(comm::Communicator& ranks, std::span<const int> gpus,
                                       const Stream& stream, std::chrono::nanoseconds patience);
  PeerSum(const PeerSum&) = delete;
  PeerSum& operator=(const PeerSum&) = delete;
  // Waits for the stream, on which nobody is waited for any more.
  ~PeerSum();

  // Collective, on the stream: y += the sum of all ranks' `mine`, as tree_sum() adds them. Both are
  // aligned to 16 bytes, count is a multiple of 4. `way` is not the library.
  void add(const float* mine, float* y, std::int64_t count, SumWay way);
  // Likewise: y, of rank 0, [rows, ranks * width] = all ranks' `mine` [rows, width] side by side.
  void put_columns(const float* mine, int rows, int width, float* y);
  // Once what is on the stream is done: throws comm::CommError if it waited in vain.
  void check() const;
  // Kernels wait for nobody any more.
  void give_up() noexcept { GiveUp{lost_word()}(); }

 private:
  struct GiveUp {
    std::uint32_t* lost;
    void operator()() const noexcept { std::atomic_ref(*lost).store(1, std::memory_order_relaxed); }
  };

  PeerSum(comm::Communicator& ranks, const Stream& stream, std::chrono::nanoseconds patience);
  // Every rank's places.
  void send_to(std::vector<std::shared_ptr<PeerPlaces>> all);
  std::uint32_t* lost_word() const { return static_cast<std::uint32_t*>(lost_.get()); }

  const Stream& stream_;
  // The last rank to go frees all of them: whoever goes first may still be written to.
  std::vector<std::shared_ptr<PeerPlaces>> all_;
  const DeviceMemory state_;
  const HostMemory lost_;
  kernels::cuda::PeerParams params_;
  const std::stop_token aborted_;
  std::optional<std::stop_callback<GiveUp>> on_abort_;
};

}  // namespace dsm::device
