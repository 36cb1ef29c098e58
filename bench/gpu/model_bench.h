// Times of steps of a whole model with random weights: decode at several batch sizes, and prefill.
#pragma once

#include <filesystem>
#include <functional>
#include <vector>

#include "bench/gpu/report.h"
#include "bench/gpu/shapes.h"

namespace dsm::bench {

struct ModelPlan {
  bool deterministic = true;                  // else the loose mode
  bool fp8 = false;                           // weights, activations; the cache is in BF16 then
  bool wide_exact = false;                    // the deterministic mode's kernel for many rows
  bool megakernel = false;                    // steps of up to 16 tokens as one kernel
  std::vector<int> decode_rows = {1, 8, 64};  // sequences, each with one token ...
  int context = 1024;                         // ... at this position
  int prompt = 2048;                          // tokens of one sequence
  int steps = 20;
  int threads = 8;  // that load
};

// On the GPU. The checkpoint is written into the folder. Calls `emit` with each measurement.
// kInvalid, kExhausted: as RankModel::load. Throws as backends do.
Status measure_model(const ModelShape& shape, const ModelPlan& plan,
                     const std::filesystem::path& folder,
                     const std::function<void(const Measurement&)>& emit);

}  // namespace dsm::bench
