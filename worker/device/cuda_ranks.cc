#include "worker/device/cuda_ranks.h"

#include <set>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/device_error.h"
#include "kernels/cuda/launch.h"
#include "worker/comm/nccl_comm.h"
#include "worker/device/peer_ranks.h"
#include "worker/device/virtual_ranks.h"

namespace dsm::device {
namespace {

// A rank that says nothing for so long is lost. Steps have shorter limits (the leader's), so this
// is for those whom no leader watches.
constexpr Millis kTimeout{60'000};

class NcclRanks final : public CudaRanks {
 public:
  NcclRanks(const comm::NcclApi& api, comm::Communicator& ranks, const Stream& stream, bool exact)
      : ranks_(ranks.size()), exact_(exact), stream_(stream), comm_(api, ranks, clock_, kTimeout) {}

  std::string name() const override { return "NCCL"; }
  void all_gather(const float* mine, float* parts, std::size_t count) override {
    comm_.all_gather(mine, parts, count, stream_.get());
  }
  void add(const RankSumParams& p) override {
    const auto count = static_cast<std::size_t>(p.count);
    if (exact_) {
      all_gather(p.mine, p.parts, count);
      return add_parts({p.parts, ranks_, p.count, p.y, p.y}, stream_);
    }
    comm_.all_reduce(p.mine, p.mine, count, stream_.get());
    add_parts({p.mine, 1, p.count, p.y, p.y}, stream_);
  }
  void wait() override {
    comm_.wait([&] { return stream_.done(); }, "finish a step");
  }

 private:
  SystemClock clock_;
  const int ranks_;
  const bool exact_;
  const Stream& stream_;
  comm::NcclComm comm_;
};

bool share_a_gpu(const std::vector<std::shared_ptr<VirtualRank>>& ranks) {
  std::set<int> gpus;
  for (const auto& rank : ranks) gpus.insert(rank->gpu);
  return gpus.size() < ranks.size();
}

std::unique_ptr<CudaRanks> nccl_ranks(comm::Communicator& ranks, const Stream& stream, bool exact) {
  const auto api = comm::load_nccl();
  if (!api) throw DeviceError(api.error().message);
  return std::make_unique<NcclRanks>(**api, ranks, stream, exact);
}

// Adds by kernels of our own where that is quicker, or because it is wanted.
std::unique_ptr<CudaRanks> with_peers(comm::Communicator& ranks, std::unique_ptr<CudaRanks> made,
                                      const std::vector<int>& gpus, const Stream& stream,
                                      AllReduce wanted) {
  std::unique_ptr<PeerSum> peers;
  if (!gpus.empty()) peers = PeerSum::join(ranks, gpus, stream, kTimeout);
  if (peers != nullptr) {
    return std::make_unique<PeerRanks>(ranks, std::move(made), std::move(peers), stream,
                                       wanted == AllReduce::kPeer);
  }
  if (wanted == AllReduce::kAuto) return made;
  throw DeviceError(
      "--all-reduce is peer, but the ranks are not all in one pod with GPUs that reach each "
      "other's memory over NVLink or PCIe (--all-reduce auto)");
}

}  // namespace

std::unique_ptr<CudaRanks> join_ranks(comm::Communicator& ranks, const JoinOptions& options,
                                      const Stream& stream) {
  const auto own = std::make_shared<VirtualRank>();
  own->gpu = options.gpu;
  std::vector<std::shared_ptr<VirtualRank>> all;
  std::vector<int> gpus;  // of all ranks; none where they are not all in this process
  for (const auto& rank : ranks.share(own)) {
    all.push_back(std::static_pointer_cast<VirtualRank>(rank));
    gpus.push_back(all.back()->gpu);
  }
  const bool shared = share_a_gpu(all);
  std::unique_ptr<CudaRanks> made;
  if (shared) {
    made = std::make_unique<VirtualRanks>(ranks, std::move(all), stream);
  } else {
    made = nccl_ranks(ranks, stream, options.exact);
  }
  const AllReduce wanted = options.all_reduce;
  // On one GPU kernels that wait for each other may wait for what cannot start beside them.
  if (wanted == AllReduce::kNccl || (shared && wanted == AllReduce::kAuto)) return made;
  return with_peers(ranks, std::move(made), gpus, stream, wanted);
}

void add_parts(const kernels::TreeSumParams& params, const Stream& stream) {
  kernels::cuda::tree_sum(params, stream.get());
  check(cudaGetLastError(), "start a kernel");
}

}  // namespace dsm::device
