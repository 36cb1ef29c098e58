// The model behind a group's ranks: loads a rank's weights, runs its steps and samples on rank 0.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include "base/log.h"
#include "worker/device/devices.h"
#include "worker/device/gpu_check.h"
#include "worker/group/rank_executor.h"
#include "worker/model/adapter_store.h"
#include "worker/model/config.h"
#include "worker/model/kv_layer.h"

namespace dsm::worker {

struct ModelSpec {
  std::filesystem::path dir;
  model::ModelConfig config;
  int ranks = 1;
  int local_ranks = 1;  // of this process: consecutive, from a multiple of their number on
  device::Device device = device::Device::kCpu;
  device::CheckKind device_check = device::CheckKind::kOff;  // before weights are loaded
  device::AllReduce all_reduce = device::AllReduce::kAuto;
  bool sleeps = false;                // as BackendSpec's
  device::KernelChoice kernels = {};  // likewise; chosen when all else is known
  int threads_per_rank = 1;
  model::KvSpec kv;
  int max_batch_tokens = 0;
  int sampled_vocab = 0;      // as RankSpec's
  bool drafts = false;        // from the model's own prediction layer, for rows that ask for them
  bool deterministic = true;  // these four as RankSpec's
  bool expert_parallel = false;
  bool data_parallel_attention = false;
  bool fp8_activations = false;
  std::optional<kernels::DType> round_weights = {};         // as RankSpec's
  std::shared_ptr<model::AdapterStore> adapters = nullptr;  // null: no row names one
};

group::RankLoader model_loader(ModelSpec spec, Logger log);

}  // namespace dsm::worker
