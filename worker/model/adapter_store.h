// The adapters of this process's ranks. They are loaded and forgotten while steps run: a rank looks
// its rows' adapters up by number, once per step, and holds them until the step is over. The
// weights are in memory as long as somebody holds the engine::Adapter that load() has returned.
//
// They live in the memory of the host; resident_adapters.h brings them to where a rank computes.
//
// Thread-safe. What was loaded may outlive the store.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/result.h"
#include "worker/engine/adapter.h"
#include "worker/model/adapter_weights.h"
#include "worker/model/config.h"

namespace dsm::model {

class AdapterStore {
 public:
  struct Spec {
    int ranks = 1;  // of the group
    int first_rank = 0;
    int local_ranks = 1;    // of this process, from first_rank on
    bool segmented = true;  // these two as the ranks' WeightSlice
    bool data_parallel_attention = false;
    int max_adapters = 1;  // at a time, those that are only still in use included
    int max_rank = 1;
  };
  AdapterStore(ModelConfig model, Spec spec);
  AdapterStore(const AdapterStore&) = delete;
  AdapterStore& operator=(const AdapterStore&) = delete;

  // Reads a folder with adapter_config.json and adapter_model.safetensors, which nobody may change
  // meanwhile. Numbers rise from 1 in the order of the calls. kExhausted: there are max_adapters,
  // or no memory; else as AdapterFiles::open().
  Result<std::shared_ptr<const engine::Adapter>> load(const std::string& name,
                                                      const std::filesystem::path& dir);

  // As load(), for a process that follows the numbers of another, which counts them: under `id`,
  // which nobody holds here, whatever max_adapters says.
  Result<std::shared_ptr<const engine::Adapter>> load_as(engine::AdapterId id,
                                                         const std::string& name,
                                                         const std::filesystem::path& dir);

  // The weights of a local rank; null when nobody holds such an adapter.
  std::shared_ptr<const AdapterWeights> find(engine::AdapterId id, int rank) const;

  // Of what one adapter takes on a local rank (adapter_room.h), at most.
  std::size_t most_bytes(int rank) const;
  int max_adapters() const { return spec_.max_adapters; }
  int max_rank() const { return spec_.max_rank; }
  int size() const;  // in memory

 private:
  struct Loaded {
    engine::Adapter adapter;
    std::vector<AdapterWeights> ranks;
  };
  AdapterCut cut_of(int rank) const;
  Result<std::shared_ptr<Loaded>> read(const std::filesystem::path& dir) const;
  std::shared_ptr<const engine::Adapter> enter(std::shared_ptr<Loaded> loaded, engine::AdapterId id,
                                               const std::string& name);

  const ModelConfig model_;
  const Spec spec_;
  std::mutex loading_;  // one at a time: the limit is looked at before and counts afterwards
  mutable std::mutex mutex_;
  std::map<engine::AdapterId, std::weak_ptr<const Loaded>> loaded_;
  engine::AdapterId last_ = engine::kNoAdapter;  // the highest; changed while `loading_` is held
};

}  // namespace dsm::model
