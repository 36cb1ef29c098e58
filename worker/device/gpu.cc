#include "worker/device/gpu.h"

#ifdef DSM_CUDA
#include "worker/device/cuda_memory.h"
#else
#include <stdexcept>
#endif

namespace dsm::device {

std::int64_t free_gpu_bytes() {
#ifdef DSM_CUDA
  std::size_t free = 0;
  std::size_t total = 0;
  check(cudaMemGetInfo(&free, &total), "ask for its free memory");
  return static_cast<std::int64_t>(free);
#else
  throw std::runtime_error("this program was built without CUDA");
#endif
}

}  // namespace dsm::device
