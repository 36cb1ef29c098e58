// Pools are nothing of their own here: each device sees all memory.
#include <cuda_runtime_api.h>

#include <span>

#include "kernels/cuda/emulation/gpus.h"
#include "kernels/cuda/emulation/stream.h"

struct CUmemPoolHandle_st {};

using dsm::emulation::is_gpu;

// No device is its own peer.
cudaError_t cudaDeviceCanAccessPeer(int* can, int device, int peer) {
  if (!is_gpu(device) || !is_gpu(peer)) return dsm::emulation::set_error(cudaErrorInvalidDevice);
  *can = device != peer ? 1 : 0;
  return cudaSuccess;
}

cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps* properties) {
  const cudaMemPoolProps& p = *properties;
  if (p.allocType != cudaMemAllocationTypePinned || p.location.type != cudaMemLocationTypeDevice) {
    return dsm::emulation::set_error(cudaErrorInvalidValue);
  }
  if (!is_gpu(p.location.id)) return dsm::emulation::set_error(cudaErrorInvalidDevice);
  *pool = new CUmemPoolHandle_st;
  return cudaSuccess;
}

cudaError_t cudaMemPoolSetAccess(cudaMemPool_t, const cudaMemAccessDesc* list, std::size_t count) {
  for (const cudaMemAccessDesc& access : std::span(list, count)) {
    if (!is_gpu(access.location.id)) return dsm::emulation::set_error(cudaErrorInvalidDevice);
  }
  return cudaSuccess;
}

cudaError_t cudaMemPoolDestroy(cudaMemPool_t pool) {
  delete pool;
  return cudaSuccess;
}

cudaError_t cudaMallocFromPoolAsync(void** memory, std::size_t bytes, cudaMemPool_t,
                                    cudaStream_t stream) {
  return cudaMallocAsync(memory, bytes, stream);
}
