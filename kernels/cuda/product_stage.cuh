// What the products of many rows (product_wide.cu, product_paired.cu) have in shared memory of 64
// inputs: rows as SharedRows, and weights as stage_weights.h has them.
#pragma once

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/stage_weights.h"

namespace dsm::kernels::cuda {

inline constexpr int kStageSteps = kWideInputs / 16;
inline constexpr int kStageRowBytes = kWideInputs * 2;

// Calls launch<type>() for the weights' type, of those that become BF16 on their way.
template <class Launch>
void by_weights(DType type, const Launch& launch) {
  switch (type) {
    case DType::kF8E4M3:
      return launch.template operator()<DType::kF8E4M3>();
    case DType::kInt8:
      return launch.template operator()<DType::kInt8>();
    case DType::kInt4:
      return launch.template operator()<DType::kInt4>();
    default:
      return launch.template operator()<DType::kBF16>();
  }
}

}  // namespace dsm::kernels::cuda
