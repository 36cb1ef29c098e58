// Ranks that add up by the quickest way: as other ranks do, or by kernels of our own. Which is
// quickest is measured when they meet. Steps that repeat have kernels of our own alone, so that
// they can be recorded, unless the other way is quicker by more than recording is worth.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "worker/device/cuda_ranks.h"
#include "worker/device/peer_sum.h"
#include "worker/device/sum_ways.h"

namespace dsm::device {

class TimedMark;

class PeerRanks final : public CudaRanks {
 public:
  // Collective. `library` does all that is not a sum as well. With `peers_alone` it adds nothing.
  PeerRanks(comm::Communicator& ranks, std::unique_ptr<CudaRanks> library,
            std::unique_ptr<PeerSum> peers, const Stream& stream, bool peers_alone);
  ~PeerRanks() override;

  std::string name() const override;
  void all_gather(const float* mine, float* parts, std::size_t count) override;
  void add(const RankSumParams& params) override;
  bool put_columns(const RankColumnsParams& params) override;
  SharedSteps* shared() override { return &steps_; }
  void wait() override;

 private:
  SumWay way_of(std::int64_t count);
  void add_by(SumWay way, const RankSumParams& params);
  // Microseconds of a sum.
  float time_of(SumWay way, const RankSumParams& params, TimedMark& begin, TimedMark& end);
  // Of all ranks.
  std::vector<float> times(bool peers_alone);
  SumWays measured(bool peers_alone);

  comm::Communicator& ranks_;
  const Stream& stream_;
  std::unique_ptr<PeerSum> peers_;
  std::unique_ptr<CudaRanks> library_;  // goes first: it lets go of what the stream waits for
  SharedSteps steps_;
  const SumWays ways_;
};

}  // namespace dsm::device
