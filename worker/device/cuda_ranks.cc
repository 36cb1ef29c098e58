#include "worker/device/cuda_ranks.h"

#include <set>

#include "base/clock.h"
#include "base/device_error.h"
#include "worker/comm/nccl_comm.h"
#include "worker/device/virtual_ranks.h"

namespace dsm::device {
namespace {

// A rank that says nothing for so long is lost. Steps have shorter limits (the leader's), so this
// is for those whom no leader watches.
constexpr Millis kTimeout{60'000};

class NcclRanks final : public CudaRanks {
 public:
  NcclRanks(const comm::NcclApi& api, comm::Communicator& ranks, const Stream& stream)
      : stream_(stream), comm_(api, ranks, clock_, kTimeout) {}

  void all_gather(const float* mine, float* parts, std::size_t count) override {
    comm_.all_gather(mine, parts, count, stream_.get());
  }
  bool all_reduce(float* mine, std::size_t count) override {
    comm_.all_reduce(mine, mine, count, stream_.get());
    return true;
  }
  void wait() override {
    comm_.wait([&] { return stream_.done(); }, "finish a step");
  }

 private:
  SystemClock clock_;
  const Stream& stream_;
  comm::NcclComm comm_;
};

bool share_a_gpu(const std::vector<std::shared_ptr<VirtualRank>>& ranks) {
  std::set<int> gpus;
  for (const auto& rank : ranks) gpus.insert(rank->gpu);
  return gpus.size() < ranks.size();
}

}  // namespace

std::unique_ptr<CudaRanks> join_ranks(comm::Communicator& ranks, int gpu, const Stream& stream) {
  const auto own = std::make_shared<VirtualRank>();
  own->gpu = gpu;
  std::vector<std::shared_ptr<VirtualRank>> all;
  for (const auto& rank : ranks.share(own)) {
    all.push_back(std::static_pointer_cast<VirtualRank>(rank));
  }
  if (share_a_gpu(all)) return std::make_unique<VirtualRanks>(ranks, std::move(all), stream);
  const auto api = comm::load_nccl();
  if (!api) throw DeviceError(api.error().message);
  return std::make_unique<NcclRanks>(**api, ranks, stream);
}

}  // namespace dsm::device
