#include "worker/device/cuda_progress.h"

#include <atomic>

#include "kernels/cuda/progress.h"

namespace dsm::device {
namespace {

// A kernel costs a step about 2 us; a step of 32 layers has eight of these.
constexpr unsigned kNorms = 8;

}  // namespace

CudaProgress::CudaProgress(const Stream& stream, CudaMegakernel& megakernel)
    : stream_(stream),
      megakernel_(megakernel),
      count_(device_memory(sizeof(std::uint64_t))),
      seen_(host_memory(sizeof(std::uint64_t))) {
  *static_cast<std::uint64_t*>(seen_.get()) = 0;
  check(cudaMemsetAsync(count_.get(), 0, sizeof(std::uint64_t), stream.get()), "clear memory");
}

void CudaProgress::norm() {
  if (norms_++ % kNorms != 0) return;
  auto* const count = static_cast<std::uint64_t*>(count_.get());
  auto* const seen = static_cast<std::uint64_t*>(seen_.get());
  if (megakernel_.count_move({count, seen})) return;
  kernels::cuda::count_move(count, seen, stream_.get());
  check(cudaGetLastError(), "start a kernel");
}

std::uint64_t CudaProgress::moves() const {
  return std::atomic_ref(*static_cast<std::uint64_t*>(seen_.get())).load(std::memory_order_relaxed);
}

}  // namespace dsm::device
