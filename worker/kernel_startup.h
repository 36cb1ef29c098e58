// At a worker's start on a GPU: which kernels its model is computed with. Where there are some that
// only a measurement on this GPU can judge (worker/model/kernel_trials.h), a child process of this
// program tries them, before this process has a context on the GPU. If it crashes, hangs or is
// wrong, that costs the seconds until its deadline: what it had seen until then counts, and for
// the rest the kernels are those that are proven.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/child.h"
#include "base/log.h"
#include "base/metrics.h"
#include "worker/device/kernel_choice.h"
#include "worker/model/kernel_trials.h"

namespace dsm::worker {

// The program's first argument, as which it is a process that tries.
inline constexpr std::string_view kTrialsCommand = "try-kernels";

struct KernelWish {
  bool measured = true;                 // else the proven ones
  std::optional<bool> megakernel = {};  // steps of decoding as one kernel: whatever trials say
};

struct TrialSetting {
  model::TriedModel model;
  std::filesystem::path dir;  // of config.json
  bool whole_group = true;    // all ranks are this process's
  std::string capability;     // of the GPU
  // Starts a process that tries; what it is to do is added.
  std::vector<std::string> program{"/proc/self/exe", std::string(kTrialsCommand)};
  ChildLimits limits = {};
  int repeats = 9;                                        // as TrialsAsked's
  std::function<bool()> given_up = [] { return false; };  // asked now and then
};

// What came of trials: what was seen, and where they stopped short.
struct Tried {
  std::vector<model::TrialSeen> seen;
  std::string problem;  // empty: they are through
};
Tried try_in_child(const TrialSetting& setting, const std::vector<model::Trial>& trials);

// Says in the log what it has chosen and why.
device::KernelChoice choose_kernels(const KernelWish& wish, const TrialSetting& setting,
                                    const Logger& log);

// dsm_gpu_kernels_info, with what was chosen as its labels.
void tell_kernels(const device::KernelChoice& kernels, MetricsRegistry& registry);

// What a process that tries does, told by `asked`; its exit status.
int try_kernels(std::string_view asked);

}  // namespace dsm::worker
