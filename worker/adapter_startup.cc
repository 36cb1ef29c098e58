#include "worker/adapter_startup.h"

#include <fstream>
#include <iterator>
#include <utility>

#include "base/random.h"
#include "worker/model/weights.h"

namespace dsm::worker {
namespace {

namespace fs = std::filesystem;

std::unexpected<Error> bad_module(const std::string& name, const Error& error) {
  return wrap(error, "--lora-modules: " + name);
}

// What the leader wants of a pod that is not the leader.
Result<group::AdapterPointer> load_for_leader(model::AdapterStore& store,
                                              const group::SharedAdapter& wanted) {
  auto loaded = store.load_as(wanted.id, wanted.name, wanted.path);
  if (loaded && adapter_digest(wanted.path) != wanted.digest) {
    return fail(ErrorKind::kInvalid, wanted.path + ": its files differ from the leader's");
  }
  return loaded;
}

}  // namespace

std::shared_ptr<model::AdapterStore> adapter_store(const Options& options,
                                                   const model::ModelConfig& config,
                                                   device::Device device) {
  if (!options.has_adapters()) return nullptr;
  return std::make_shared<model::AdapterStore>(
      config,
      model::AdapterStore::Spec{.ranks = options.tensor_parallel,
                                .first_rank = options.pod_index * options.ranks_per_pod,
                                .local_ranks = options.local_ranks(),
                                .segmented = model::cuts_segments(device, *options.deterministic),
                                .data_parallel_attention = options.data_parallel_attention,
                                .max_adapters = options.max_loras,
                                .max_rank = options.max_lora_rank});
}

std::string adapter_digest(const fs::path& dir) {
  std::string all;
  for (const char* name : {"adapter_config.json", "adapter_model.safetensors"}) {
    std::ifstream file(dir / name, std::ios::binary);
    const std::string content(std::istreambuf_iterator<char>(file),
                              (std::istreambuf_iterator<char>()));
    all += sha256_hex(content);
  }
  return sha256_hex(all);
}

Result<ServedAdapters> served_adapters(const Options& options,
                                       const std::shared_ptr<model::AdapterStore>& store,
                                       std::int64_t now) {
  if (!store) return ServedAdapters{};
  if (std::error_code missing;
      !options.lora_dir.empty() && !fs::is_directory(options.lora_dir, missing)) {
    return fail(ErrorKind::kInvalid, "--lora-dir is '" + options.lora_dir + "', not a folder");
  }
  server::Adapters::Options made{.base = options.served_name,
                                 .dir = options.lora_dir,
                                 .limit = options.max_loras,
                                 .load = [store](const std::string& name, const fs::path& dir) {
                                   return store->load(name, dir);
                                 }};
  ServedAdapters adapters;
  if (options.tensor_parallel > options.ranks_per_pod) {
    adapters.shared = std::make_shared<group::SharedAdapters>();
    made.share = [shared = adapters.shared](const group::AdapterPointer& adapter,
                                            const fs::path& dir) {
      return shared->share(adapter, dir.string(), adapter_digest(dir));
    };
  }
  adapters.names = std::make_shared<server::Adapters>(std::move(made));
  for (const auto& [name, dir] : options.adapters) {
    if (auto added = adapters.names->add(name, dir, now); !added) {
      return bad_module(name, added.error());
    }
    if (adapters.shared) {
      adapters.shared->add(adapters.names->find(name), dir, adapter_digest(dir));
    }
  }
  return adapters;
}

Result<std::shared_ptr<group::HeldAdapters>> held_adapters(
    const Options& options, const std::shared_ptr<model::AdapterStore>& store) {
  if (!store) return nullptr;
  auto held = std::make_shared<group::HeldAdapters>(
      [store](const group::SharedAdapter& wanted) { return load_for_leader(*store, wanted); });
  for (const auto& [name, dir] : options.adapters) {
    auto adapter = store->load(name, dir);
    if (!adapter) return bad_module(name, adapter.error());
    const group::SharedAdapter known{
        .id = (*adapter)->id, .name = name, .path = dir, .digest = adapter_digest(dir)};
    held->add(known, std::move(*adapter));
  }
  return held;
}

}  // namespace dsm::worker
