#include "worker/device/peer_sum.h"

#include <string>
#include <utility>

#include "kernels/cuda/all_reduce.h"
#include "kernels/cuda/peer_columns.h"
#include "worker/device/gpu_holdings.h"

namespace dsm::device {
namespace {

bool reach(int gpu, std::span<const int> peers) {
  for (const int peer : peers) {
    int can = peer == gpu ? 1 : 0;
    if (can == 0 && cudaDeviceCanAccessPeer(&can, gpu, peer) != cudaSuccess) {
      cudaGetLastError();
      return false;
    }
    if (can == 0) return false;
  }
  return true;
}

struct DestroyPool {
  void operator()(cudaMemPool_t pool) const { cudaMemPoolDestroy(pool); }
};
using Pool = std::unique_ptr<CUmemPoolHandle_st, DestroyPool>;

// Whose memory the peers reach. cudaDeviceEnablePeerAccess() would show them all that this GPU
// allocates, and have each cudaFree() wait for their kernels, which may wait for this rank.
Pool shared_pool(int gpu, std::span<const int> peers) {
  int there = 0;
  if (cudaDeviceGetAttribute(&there, cudaDevAttrMemoryPoolsSupported, gpu) != cudaSuccess ||
      there == 0) {
    return nullptr;
  }
  cudaMemPoolProps properties = {};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location.type = cudaMemLocationTypeDevice;
  properties.location.id = gpu;
  cudaMemPool_t made = nullptr;
  if (cudaMemPoolCreate(&made, &properties) != cudaSuccess) return nullptr;
  Pool pool(made);
  std::vector<cudaMemAccessDesc> access;
  for (const int peer : peers) {
    if (peer == gpu) continue;
    cudaMemAccessDesc to = {};
    to.location.type = cudaMemLocationTypeDevice;
    to.location.id = peer;
    to.flags = cudaMemAccessFlagsProtReadWrite;
    access.push_back(to);
  }
  if (!access.empty() &&
      cudaMemPoolSetAccess(pool.get(), access.data(), access.size()) != cudaSuccess) {
    return nullptr;
  }
  return pool;
}

}  // namespace

class PeerPlaces {
 public:
  // Null where the GPU does not do it.
  static std::shared_ptr<PeerPlaces> make(int gpu, std::span<const int> peers,
                                          const Stream& stream) {
    auto places = std::make_shared<PeerPlaces>();
    places->pool_ = shared_pool(gpu, peers);
    void* memory = nullptr;
    if (places->pool_ == nullptr ||
        cudaMallocFromPoolAsync(&memory, kernels::cuda::kPeerBytes, places->pool_.get(),
                                stream.get()) != cudaSuccess) {
      cudaGetLastError();
      return nullptr;
    }
    places->memory_ = {memory, FreeDevice{.gpu = gpu, .bytes = kernels::cuda::kPeerBytes}};
    count_allocated(gpu, std::int64_t{kernels::cuda::kPeerBytes});
    device::check(
        cudaMemsetAsync(memory, kernels::cuda::kEmptyByte, kernels::cuda::kPeerBytes, stream.get()),
        "clear memory");
    stream.synchronise();
    return places;
  }
  float* get() const { return static_cast<float*>(memory_.get()); }

 private:
  Pool pool_;
  DeviceMemory memory_;  // of the pool
};

std::unique_ptr<PeerSum> PeerSum::join(comm::Communicator& ranks, std::span<const int> gpus,
                                       const Stream& stream, std::chrono::nanoseconds patience) {
  if (ranks.size() > kernels::kSegments) return nullptr;
  const int gpu = gpus[static_cast<std::size_t>(ranks.rank())];
  kernels::cuda::load_all_reduce();
  kernels::cuda::load_peer_columns();
  device::check(cudaGetLastError(), "load kernels");
  std::shared_ptr<PeerPlaces> own;
  if (reach(gpu, gpus)) own = PeerPlaces::make(gpu, gpus, stream);
  // All that this rank takes, before it meets the others: they may add at once when they have met.
  std::unique_ptr<PeerSum> made(new PeerSum(ranks, stream, patience));
  std::vector<std::shared_ptr<PeerPlaces>> all;
  for (const auto& rank : ranks.share(own)) {
    if (rank == nullptr) return nullptr;
    all.push_back(std::static_pointer_cast<PeerPlaces>(rank));
  }
  made->send_to(std::move(all));
  return made;
}

PeerSum::PeerSum(comm::Communicator& ranks, const Stream& stream, std::chrono::nanoseconds patience)
    : stream_(stream),
      state_(device_memory(sizeof(kernels::cuda::PeerState))),
      lost_(host_memory(sizeof(std::uint32_t))),
      aborted_(ranks.aborted()) {
  device::check(cudaMemsetAsync(state_.get(), 0, sizeof(kernels::cuda::PeerState), stream_.get()),
                "clear memory");
  stream_.synchronise();
  *lost_word() = 0;
  params_.rank = ranks.rank();
  params_.ranks = ranks.size();
  params_.state = static_cast<kernels::cuda::PeerState*>(state_.get());
  params_.lost = lost_word();
  params_.patience_ns = patience.count();
  on_abort_.emplace(aborted_, GiveUp{lost_word()});
}

void PeerSum::send_to(std::vector<std::shared_ptr<PeerPlaces>> all) {
  all_ = std::move(all);
  for (std::size_t r = 0; r < all_.size(); ++r) params_.places[r] = all_[r]->get();
  params_.own = params_.places[params_.rank];
}

PeerSum::~PeerSum() {
  give_up();
  cudaStreamSynchronize(stream_.get());
}

void PeerSum::add(const float* mine, float* y, std::int64_t count, SumWay way) {
  const kernels::cuda::AllReduceParams p{.mine = mine, .y = y, .count = count, .peers = params_};
  if (way == SumWay::kOneShot) {
    kernels::cuda::all_reduce_one_shot(p, stream_.get());
  } else {
    kernels::cuda::all_reduce_two_shot(p, stream_.get());
  }
  device::check(cudaGetLastError(), "start a kernel");
}

void PeerSum::put_columns(const float* mine, int rows, int width, float* y) {
  kernels::cuda::peer_columns(
      {.mine = mine, .rows = rows, .width = width, .y = y, .peers = params_}, stream_.get());
  device::check(cudaGetLastError(), "start a kernel");
}

void PeerSum::check() const {
  // The word of a rank may be written after another rank's abort() has returned.
  if (aborted_.stop_requested()) throw comm::CommError("GPUs: the epoch was aborted");
  if (std::atomic_ref(*lost_word()).load(std::memory_order_relaxed) == 0) return;
  throw comm::CommError("GPUs: the other ranks' part of a sum did not come within " +
                        std::to_string(params_.patience_ns / 1'000'000) + " ms");
}

}  // namespace dsm::device
