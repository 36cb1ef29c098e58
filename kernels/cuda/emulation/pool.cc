// Pools are nothing of their own here: there is one device, which sees all of its memory.
#include <cuda_runtime_api.h>

#include "kernels/cuda/emulation/stream.h"

struct CUmemPoolHandle_st {};

// No device is its own peer.
cudaError_t cudaDeviceCanAccessPeer(int* can, int device, int peer) {
  *can = 0;
  return device == 0 && peer == 0 ? cudaSuccess : dsm::emulation::set_error(cudaErrorInvalidDevice);
}

cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps* properties) {
  const cudaMemPoolProps& p = *properties;
  if (p.allocType != cudaMemAllocationTypePinned || p.location.type != cudaMemLocationTypeDevice) {
    return dsm::emulation::set_error(cudaErrorInvalidValue);
  }
  if (p.location.id != 0) return dsm::emulation::set_error(cudaErrorInvalidDevice);
  *pool = new CUmemPoolHandle_st;
  return cudaSuccess;
}

// There is no other device to give access to.
cudaError_t cudaMemPoolSetAccess(cudaMemPool_t, const cudaMemAccessDesc*, std::size_t count) {
  return count == 0 ? cudaSuccess : dsm::emulation::set_error(cudaErrorInvalidDevice);
}

cudaError_t cudaMemPoolDestroy(cudaMemPool_t pool) {
  delete pool;
  return cudaSuccess;
}

cudaError_t cudaMallocFromPoolAsync(void** memory, std::size_t bytes, cudaMemPool_t,
                                    cudaStream_t stream) {
  return cudaMallocAsync(memory, bytes, stream);
}
