// What the products of many rows (product_wide.cu, product_paired.cu) have in shared memory of 64
// inputs: rows as SharedRows, and weights as stage_weights.h has them.
#pragma once

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/stage_weights.h"

namespace dsm::kernels::cuda {

inline constexpr int kStageSteps = kWideInputs / 16;
inline constexpr int kStageRowBytes = kWideInputs * 2;

}  // namespace dsm::kernels::cuda
