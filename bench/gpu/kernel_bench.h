// Times of the operators of a model's layer and of its head, each beside its bound.
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "bench/gpu/report.h"
#include "bench/gpu/shapes.h"

namespace dsm::bench {

struct KernelPlan {
  std::vector<int> decode_rows = {1, 8, 64};  // sequences, each with one token ...
  int context = 1024;                         // ... at this position
  int prompt = 2048;                          // tokens of one sequence
  int repeats = 20;
  std::size_t flush_bytes = std::size_t{256} << 20;  // more than any cache
  int threads = 8;                                   // that pack weights
};

// On the GPU, products in the loose mode. Calls `emit` with each measurement. Throws as backends
// do.
Status measure_kernels(const ModelShape& shape, const KernelPlan& plan,
                       const std::function<void(const Measurement&)>& emit);

}  // namespace dsm::bench
