// The order in which what ranks have of a sum is added: a balanced tree of their numbers.
#pragma once

#include <cuda_runtime.h>

#include "kernels/params.h"

namespace dsm::kernels::cuda {

// part[r] of the first `ranks` of them; 0 from there on.
__device__ __forceinline__ float tree_of(float (&part)[kSegments], int ranks) {
#pragma unroll
  for (int step = 1; step < kSegments; step *= 2) {
    if (step >= ranks) continue;
#pragma unroll
    for (int r = 0; r < kSegments; r += 2 * step) part[r] += part[r + step];
  }
  return part[0];
}

}  // namespace dsm::kernels::cuda
