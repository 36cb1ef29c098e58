// How kernels are started and get at their shared memory. The .cu files hold plain C++ beside the
// words and functions of CUDA: launch() stands for <<< >>>, and what only PTX can say is in
// ptx.cuh. So a C++ compiler can compile them, too (emulation/).
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"

namespace dsm::kernels::cuda {

// What a thread block gets of shared memory without being asked for, and the most that every GPU
// has (8.6 and 8.9). CUDA counts a kernel's shared variables, too, of which launch() knows nothing:
// so a kernel has them or dynamic shared memory, never both.
inline constexpr int kPlainSharedBytes = 48 << 10;
inline constexpr int kMostSharedBytes = 99 << 10;
// And that GPUs of 9.0 have.
inline constexpr int kMostHopperBytes = 227 << 10;

// Of a warp, for what its lanes do together.
inline constexpr unsigned kAllLanes = 0xffffffffU;

// Whether a kernel may be started before the one ahead of it has ended (programmatic dependent
// launch); the GPUs of all ranks are alike (check_ranks() of worker/device/devices.h).
inline bool kernels_overlap() {
  static const bool overlap = [] {
    int device = 0;
    int major = 0;
    return cudaGetDevice(&device) == cudaSuccess &&
           cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) ==
               cudaSuccess &&
           major >= 9;
  }();
  return overlap;
}

template <class... Params, class... Args>
void launch_with(cudaLaunchConfig_t config, void (*kernel)(Params...), dim3 grid, int threads,
                 int shared_bytes, Stream stream, const Args&... args) {
  if (shared_bytes > kPlainSharedBytes &&
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes) !=
          cudaSuccess) {
    return;
  }
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = static_cast<std::size_t>(shared_bytes);
  config.stream = stream;
  cudaLaunchKernelEx(&config, kernel, Params(args)...);
}

// Puts kernel(args...) on the stream, with `threads` threads in a block, a multiple of 32, and
// `shared_bytes` for dynamic_shared(). A failure is CUDA's last error.
template <class... Params, class... Args>
void launch(void (*kernel)(Params...), dim3 grid, int threads, int shared_bytes, Stream stream,
            const Args&... args) {
  launch_with({}, kernel, grid, threads, shared_bytes, stream, args...);
}

inline cudaLaunchAttribute starts_early() {
  cudaLaunchAttribute early = {};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  return early;
}

// The same for a kernel whose first words, in every thread, are follow_previous_kernel() or, if the
// next is to start when it ends, wait_for_previous_kernel(): it is started while the one before it
// ends, and waits there.
template <class... Params, class... Args>
void launch_early(void (*kernel)(Params...), dim3 grid, int threads, int shared_bytes,
                  Stream stream, const Args&... args) {
  cudaLaunchAttribute early = starts_early();
  cudaLaunchConfig_t config = {};
  config.attrs = &early;
  config.numAttrs = kernels_overlap() ? 1 : 0;
  launch_with(config, kernel, grid, threads, shared_bytes, stream, args...);
}

// The same with clusters of `blocks` that follow each other in y; from 9.0 on.
template <class... Params, class... Args>
void launch_clusters(int blocks, void (*kernel)(Params...), dim3 grid, int threads,
                     int shared_bytes, Stream stream, const Args&... args) {
  cudaLaunchAttribute attributes[2] = {starts_early(), {}};
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim.x = attributes[1].val.clusterDim.z = 1;
  attributes[1].val.clusterDim.y = static_cast<unsigned>(blocks);
  cudaLaunchConfig_t config = {};
  config.attrs = attributes;
  config.numAttrs = 2;
  launch_with(config, kernel, grid, threads, shared_bytes, stream, args...);
}

// The same with `blocks` in y that run side by side, so that they may wait for each other: no more
// than the GPU holds at a time. It is started when the kernel ahead has ended.
template <class... Params, class... Args>
void launch_together(int blocks, void (*kernel)(Params...), int threads, int shared_bytes,
                     Stream stream, const Args&... args) {
  cudaLaunchAttribute together = {};
  together.id = cudaLaunchAttributeCooperative;
  together.val.cooperative = 1;
  cudaLaunchConfig_t config = {};
  config.attrs = &together;
  config.numAttrs = 1;
  launch_with(config, kernel, dim3(1, static_cast<unsigned>(blocks)), threads, shared_bytes, stream,
              args...);
}

// Waits until what came before on the stream is done and all it wrote is there. A kernel waits
// before it does anything else, so that the end of one is the end of all before it; then the next
// may come and wait in its turn.
__device__ __forceinline__ void follow_previous_kernel() {
  wait_for_previous_kernel();
  start_next_kernel();
}

// The block's dynamic shared memory, aligned to 16 bytes.
template <class T>
__device__ T* dynamic_shared() {
  return static_cast<T*>(dynamic_shared_memory());
}

}  // namespace dsm::kernels::cuda
