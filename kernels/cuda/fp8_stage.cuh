// What the products of many rows with both sides in FP8 (product_wide_fp8.cu,
// product_paired_fp8.cu) do with a stage that is in shared memory.
#pragma once

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/fp8_stages.h"

namespace dsm::kernels::cuda {

// A lane's weights of a stage: first what it has of matrices, then operands A.
struct StageWeights {
  std::uint32_t v[kFp8StageSteps][4];
};

// Starts the product of a stage's weights by 64 rows of it.
template <int kSums>
__device__ __forceinline__ void start_product(StageWeights& weights, const unsigned char* rows,
                                              float (&sums)[kSums]) {
  const SharedRows b = shared_rows(rows);
  wgmma_fence();
  wgmma_e4m3<false>(sums, weights.v[0], b, 0);
#pragma unroll
  for (int step = 1; step < kFp8StageSteps; ++step) {
    wgmma_e4m3<true>(sums, weights.v[step], b, step);
  }
  wgmma_commit();
}

}  // namespace dsm::kernels::cuda
