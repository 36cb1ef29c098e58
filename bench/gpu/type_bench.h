// Times of operators on what is kept in few bits, each beside its bound: products with weights in
// FP8, by rows in FP32 and in FP8, and in INT8 and INT4; attention over a cache in BF16 and in FP8.
#pragma once

#include <functional>

#include "bench/gpu/kernel_bench.h"

namespace dsm::bench {

// As measure_kernels().
Status measure_types(const ModelShape& shape, const KernelPlan& plan,
                     const std::function<void(const Measurement&)>& emit);

}  // namespace dsm::bench
