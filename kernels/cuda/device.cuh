// How kernels are started and get at their shared memory. The .cu files hold plain C++ beside the
// words and functions of CUDA: launch() stands for <<< >>>, and what only PTX can say is in
// ptx.cuh. So a C++ compiler can compile them, too (emulation/).
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"

namespace dsm::kernels::cuda {

// What a thread block gets of dynamic shared memory without being asked for: 48 KiB together with
// the kernel's own shared variables, which take less than a third of that beside dynamic memory.
inline constexpr int kPlainSharedBytes = 32 << 10;

// Puts kernel(args...) on the stream, with `threads` threads in a block, a multiple of 32, and
// `shared_bytes` for dynamic_shared(). A failure is CUDA's last error.
template <class... Params, class... Args>
void launch(void (*kernel)(Params...), dim3 grid, int threads, int shared_bytes, Stream stream,
            const Args&... args) {
  if (shared_bytes > kPlainSharedBytes &&
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes) !=
          cudaSuccess) {
    return;
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = static_cast<std::size_t>(shared_bytes);
  config.stream = stream;
  cudaLaunchKernelEx(&config, kernel, Params(args)...);
}

// The block's dynamic shared memory, aligned to 16 bytes.
template <class T>
__device__ T* dynamic_shared() {
  return static_cast<T*>(dynamic_shared_memory());
}

}  // namespace dsm::kernels::cuda
