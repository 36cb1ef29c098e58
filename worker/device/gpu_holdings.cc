#include "worker/device/gpu_holdings.h"

#include <array>
#include <atomic>

namespace dsm::device {
namespace {

// More than a node has.
constexpr int kMostGpus = 64;

struct Counts {
  std::atomic<std::int64_t> allocated = 0;
  std::atomic<std::int64_t> unused = 0;
};

// Null: it is not counted.
Counts* counts_of(int gpu) {
  static std::array<Counts, kMostGpus> counts;
  return gpu >= 0 && gpu < kMostGpus ? &counts[static_cast<std::size_t>(gpu)] : nullptr;
}

}  // namespace

GpuHoldings gpu_holdings(int gpu) {
  const Counts* const counts = counts_of(gpu);
  if (counts == nullptr) return {};
  return {.allocated = counts->allocated, .unused = counts->unused};
}

void count_allocated(int gpu, std::int64_t bytes) {
  if (Counts* const counts = counts_of(gpu)) counts->allocated += bytes;
}

void count_unused(int gpu, std::int64_t bytes) {
  if (Counts* const counts = counts_of(gpu)) counts->unused += bytes;
}

}  // namespace dsm::device
