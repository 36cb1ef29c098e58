#include "worker/device/cuda_gpus.h"

#include <cuda_runtime_api.h>

#include <cstddef>

namespace dsm::device {

std::string cuda_problem() {
  int count = 0;
  const cudaError_t found = cudaGetDeviceCount(&count);
  if (found == cudaErrorInsufficientDriver) {
    cudaGetLastError();
    return "there is no driver for CUDA 13 (NVIDIA's, release 580 or later; into a container its "
           "libcuda.so.1 is mounted by NVIDIA's container runtime)";
  }
  if (found != cudaSuccess) {
    cudaGetLastError();
    return std::string("no GPU can be used: ") + cudaGetErrorString(found);
  }
  if (count == 0) return "no GPU is there";
  // That those of other ranks are like the first is asked by check_ranks().
  const std::string capability = cuda_capabilities().front();
  if (capability.empty()) return "the GPU does not say what it can compute";
  // What there is machine code for (cmake/cuda.cmake): sm_80's runs on all of 8.x, the others on
  // one GPU each.
  if (capability.starts_with("8.") || capability == "9.0" || capability == "10.0") return "";
  return "the GPU's compute capability is " + capability +
         ", this program is for 8.x, 9.0 and 10.0";
}

std::vector<std::string> cuda_capabilities() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();
    return {};
  }
  std::vector<std::string> all(static_cast<std::size_t>(count));
  for (int gpu = 0; gpu < count; ++gpu) {
    int major = 0;
    int minor = 0;
    if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, gpu) != cudaSuccess ||
        cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, gpu) != cudaSuccess) {
      cudaGetLastError();
      continue;
    }
    all[static_cast<std::size_t>(gpu)] = std::to_string(major) + "." + std::to_string(minor);
  }
  return all;
}

}  // namespace dsm::device
