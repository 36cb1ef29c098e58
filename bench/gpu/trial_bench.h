// What a worker's trials of kernels at its start (worker/kernel_startup.h) see on this GPU, of a
// public model in each way of computing it.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "bench/gpu/report.h"
#include "bench/gpu/shapes.h"
#include "kernels/params.h"

namespace dsm::bench {

// A way of computing a model that a worker may be asked for, as far as trials hang on it.
struct TriedWay {
  std::string name;
  bool deterministic = false;
  bool fp8 = false;  // the checkpoint
  bool fp8_activations = false;
  std::optional<kernels::DType> round_weights = {};
};
std::span<const TriedWay> tried_ways();

struct TrialPlan {
  std::vector<std::string> program;  // that tries (worker::TrialSetting)
  int prompt = 2048;
  int repeats = 9;
  int threads = 8;  // that pack weights
};

// Calls `emit` with each step by what is proven and by what was tried, and `say` with what was
// chosen for each way and why. config.json is written into the folder.
Status measure_trials(const ModelShape& shape, const TrialPlan& plan,
                      const std::filesystem::path& folder,
                      const std::function<void(const Measurement&)>& emit,
                      const std::function<void(const std::string&)>& say);

}  // namespace dsm::bench
