// The adapters of a worker: who reads them, who holds them, and how the pods of a group come to
// have the same.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "base/result.h"
#include "worker/device/devices.h"
#include "worker/group/adapters.h"
#include "worker/model/adapter_store.h"
#include "worker/options.h"
#include "worker/server/adapters.h"

namespace dsm::worker {

// Null: the worker was started without any and takes none.
std::shared_ptr<model::AdapterStore> adapter_store(const Options& options,
                                                   const model::ModelConfig& config,
                                                   device::Device device);

// Hash of the files in a folder; of what is not there, that of nothing.
std::string adapter_digest(const std::filesystem::path& dir);

// The leader's: under their names, and for the other pods.
struct ServedAdapters {
  std::shared_ptr<server::Adapters> names;
  std::shared_ptr<group::SharedAdapters> shared;  // null: there are no other pods
};
// Loads those of the command line; `now` is Unix time. Empty without a store.
Result<ServedAdapters> served_adapters(const Options& options,
                                       const std::shared_ptr<model::AdapterStore>& store,
                                       std::int64_t now);

// Another pod's. Loads those of the command line, in the leader's order and so with its numbers.
// Null without a store.
Result<std::shared_ptr<group::HeldAdapters>> held_adapters(
    const Options& options, const std::shared_ptr<model::AdapterStore>& store);

}  // namespace dsm::worker
