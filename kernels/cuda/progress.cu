#include "kernels/cuda/device.cuh"
#include "kernels/cuda/progress.h"

namespace dsm::kernels::cuda {
namespace {

// The count is read from the GPU's memory: from the host's it would take a way over the bus.
__global__ void count_kernel(std::uint64_t* count, std::uint64_t* seen) {
  follow_previous_kernel();
  if (threadIdx.x != 0) return;
  const std::uint64_t moves = *count + 1;
  *count = moves;
  *seen = moves;
}

}  // namespace

void count_move(std::uint64_t* count, std::uint64_t* seen, Stream stream) {
  launch_early(count_kernel, 1, 32, 0, stream, count, seen);
}

}  // namespace dsm::kernels::cuda
