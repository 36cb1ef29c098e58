#include "worker/device/gpu.h"

#ifdef DSM_CUDA
#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#endif

namespace dsm::device {

#ifdef DSM_CUDA
std::vector<std::string> gpu_buses(Device device, int ranks) {
  int count = 0;
  if (device != Device::kCuda || cudaGetDeviceCount(&count) != cudaSuccess || count == 0) return {};
  std::vector<std::string> buses;
  for (int rank = 0; rank < ranks; ++rank) {
    std::array<char, 32> bus{};
    const int gpu = std::min(rank, count - 1);
    if (cudaDeviceGetPCIBusId(bus.data(), bus.size(), gpu) != cudaSuccess) return {};
    buses.emplace_back(bus.data());
  }
  return buses;
}
#else
std::vector<std::string> gpu_buses(Device, int) {
  return {};
}
#endif

}  // namespace dsm::device
