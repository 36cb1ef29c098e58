// The device, errors, and what a launch may ask for.
#include <cuda_runtime_api.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <ranges>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/emulation/block.h"
#include "kernels/cuda/emulation/gpu_file.h"
#include "kernels/cuda/emulation/gpus.h"
#include "kernels/cuda/emulation/graph.h"
#include "kernels/cuda/emulation/stream.h"

namespace {

thread_local cudaError_t last_error = cudaSuccess;
thread_local int current_gpu = 0;

cudaError_t known_gpu(int gpu) {
  return dsm::emulation::is_gpu(gpu) ? cudaSuccess
                                     : dsm::emulation::set_error(cudaErrorInvalidDevice);
}
std::atomic<std::uint64_t> started = 0;

// Of an H100, but for the number of processors, which decides how products are laid out: few, so
// that small shapes are laid out in every way.
constexpr int kProcessors = 8;
constexpr int kMajor = 9;
constexpr int kMinor = 0;
constexpr int kMostThreads = 1024;
constexpr unsigned kMostBlocksAcross = 65535;  // in y and z
constexpr std::size_t kPlainSharedBytes = 48 << 10;
constexpr int kMostSharedBytes = 227 << 10;

// Dynamic shared memory that kernels have been allowed.
struct Allowed {
  std::mutex mutex;
  std::map<const void*, std::size_t> bytes;
};
Allowed& allowed() {
  static Allowed& allowed = *new Allowed;
  return allowed;
}

std::size_t allowed_bytes(const void* kernel) {
  const std::lock_guard lock(allowed().mutex);
  const auto found = allowed().bytes.find(kernel);
  return found != allowed().bytes.end() ? found->second : kPlainSharedBytes;
}

std::vector<std::string> listed_gpus() {
  const char* variable = std::getenv("DSM_EMULATED_GPUS");
  const std::string said = variable != nullptr ? variable : "1";
  std::vector<std::string> all;
  if (said.contains(':')) {
    for (const auto part : std::views::split(said, ',')) all.emplace_back(part.begin(), part.end());
    return all;
  }
  for (int gpu = 0; gpu < std::atoi(said.c_str()); ++gpu) {
    std::array<char, 32> address{};
    std::snprintf(address.data(), address.size(), "0000:%02X:00.0", gpu + 1);
    all.emplace_back(address.data());
  }
  return all;
}

}  // namespace

static_assert(dsm::emulation::kMostTogether == 2 * kProcessors);

namespace dsm::emulation {

const std::vector<std::string>& gpu_addresses() {
  static const std::vector<std::string> found = [] {
    std::vector<std::string> all = listed_gpus();
    std::erase_if(all, [](const std::string& address) {
      const auto file = read_gpu_file(address);
      return file && file->lost();
    });
    return all;
  }();
  return found;
}

cudaError_t set_error(cudaError_t error) {
  return last_error = error;
}

std::uint64_t kernels_started() {
  return started;
}

cudaError_t launch(const cudaLaunchConfig_t& config, const void* kernel, Work body) {
  const dim3& grid = config.gridDim;
  const dim3& block = config.blockDim;
  const std::size_t threads = std::size_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > std::size_t{kMostThreads} || grid.x == 0 || grid.y == 0 ||
      grid.z == 0 || grid.x > 0x7fffffffU || grid.y > kMostBlocksAcross ||
      grid.z > kMostBlocksAcross) {
    return set_error(cudaErrorInvalidConfiguration);
  }
  if (config.dynamicSmemBytes > allowed_bytes(kernel)) return set_error(cudaErrorInvalidValue);
  unsigned cluster = 1;
  for (const cudaLaunchAttribute& attribute : std::span(config.attrs, config.numAttrs)) {
    if (attribute.id == cudaLaunchAttributeCooperative && attribute.val.cooperative != 0) {
      if (grid.x != 1 || grid.z != 1 || grid.y > kMostTogether) {
        return set_error(cudaErrorInvalidConfiguration);
      }
      cluster = grid.y;
    }
    if (attribute.id != cudaLaunchAttributeClusterDimension) continue;
    const auto& [x, y, z] = attribute.val.clusterDim;
    if (x != 1 || z != 1 || y == 0 || grid.y % y != 0) {
      return set_error(cudaErrorInvalidConfiguration);
    }
    cluster = y;
  }
  ++started;
  enqueue(config.stream, [call = KernelCall{kernel, grid, block, config.dynamicSmemBytes,
                                            std::move(body), cluster}] { run(call); });
  return cudaSuccess;
}

}  // namespace dsm::emulation

cudaError_t cudaGetLastError() {
  return std::exchange(last_error, cudaSuccess);
}

cudaError_t cudaPeekAtLastError() {
  return last_error;
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorInsufficientDriver:
      return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice:
      return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
    case cudaErrorNotReady:
      return "device not ready";
    case cudaErrorStreamCaptureUnsupported:
      return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated:
      return "operation failed due to a previous error during capture";
  }
  return "unknown error";
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = dsm::emulation::gpus();
  return *count > 0 ? cudaSuccess : dsm::emulation::set_error(cudaErrorNoDevice);
}

cudaError_t cudaDeviceGetPCIBusId(char* address, int bytes, int device) {
  const cudaError_t known = known_gpu(device);
  if (known != cudaSuccess) return known;
  const std::string& found = dsm::emulation::gpu_addresses()[static_cast<std::size_t>(device)];
  std::snprintf(address, static_cast<std::size_t>(bytes), "%s", found.c_str());
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = current_gpu;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  const cudaError_t known = known_gpu(device);
  if (known == cudaSuccess) current_gpu = device;
  return known;
}

cudaError_t cudaSetDeviceFlags(unsigned) {
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  *properties = {};
  std::snprintf(properties->name, sizeof properties->name, "emulated");
  std::size_t free = 0;
  cudaMemGetInfo(&free, &properties->totalGlobalMem);
  properties->multiProcessorCount = kProcessors;
  properties->major = kMajor;
  properties->minor = kMinor;
  properties->sharedMemPerBlockOptin = kMostSharedBytes;
  return known_gpu(device);
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = kProcessors;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = kMajor;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = kMinor;
      break;
    case cudaDevAttrMemoryPoolsSupported:
      *value = 1;
      break;
  }
  return known_gpu(device);
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  attributes->maxThreadsPerBlock = kMostThreads;
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute, int value) {
  if (value < 0 || value > kMostSharedBytes) {
    return dsm::emulation::set_error(cudaErrorInvalidValue);
  }
  const std::lock_guard lock(allowed().mutex);
  allowed().bytes[kernel] = static_cast<std::size_t>(value);
  return cudaSuccess;
}
