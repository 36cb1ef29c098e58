#include "worker/model/adapter_store.h"

#include <algorithm>
#include <new>
#include <utility>

#include "worker/model/adapter_room.h"

namespace dsm::model {

AdapterStore::AdapterStore(ModelConfig model, Spec spec) : model_(std::move(model)), spec_(spec) {}

Result<std::shared_ptr<const engine::Adapter>> AdapterStore::load(
    const std::string& name, const std::filesystem::path& dir) {
  const std::lock_guard one_at_a_time(loading_);
  if (size() >= spec_.max_adapters) {
    return fail(ErrorKind::kExhausted,
                std::to_string(spec_.max_adapters) +
                    " adapters are in memory, which is --max-loras; one that is unloaded counts "
                    "until its last request has ended");
  }
  auto made = read(dir);
  if (!made) return std::unexpected(made.error());
  return enter(std::move(*made), last_ + 1, name);
}

Result<std::shared_ptr<const engine::Adapter>> AdapterStore::load_as(
    engine::AdapterId id, const std::string& name, const std::filesystem::path& dir) {
  const std::lock_guard one_at_a_time(loading_);
  auto made = read(dir);
  if (!made) return std::unexpected(made.error());
  return enter(std::move(*made), id, name);
}

std::shared_ptr<const engine::Adapter> AdapterStore::enter(std::shared_ptr<Loaded> loaded,
                                                           engine::AdapterId id,
                                                           const std::string& name) {
  loaded->adapter = {.id = id, .name = name};
  const std::lock_guard lock(mutex_);
  last_ = std::max(last_, id);
  std::erase_if(loaded_, [](const auto& entry) { return entry.second.expired(); });
  loaded_.insert_or_assign(id, loaded);
  const engine::Adapter* const adapter = &loaded->adapter;
  return {std::move(loaded), adapter};
}

AdapterCut AdapterStore::cut_of(int rank) const {
  const RankCut cut{rank, spec_.ranks};
  return {.rank = cut,
          .attention = attention_cut(cut, spec_.data_parallel_attention),
          .segmented = spec_.segmented};
}

std::size_t AdapterStore::most_bytes(int rank) const {
  return most_adapter_bytes(model_, cut_of(rank), spec_.max_rank);
}

Result<std::shared_ptr<AdapterStore::Loaded>> AdapterStore::read(
    const std::filesystem::path& dir) const {
  try {
    const auto files = AdapterFiles::open(dir, model_, spec_.max_rank);
    if (!files) return std::unexpected(files.error());
    auto loaded = std::make_shared<Loaded>();
    for (int i = 0; i < spec_.local_ranks; ++i) {
      loaded->ranks.push_back(cut_adapter(*files, model_, cut_of(spec_.first_rank + i)));
    }
    return loaded;
  } catch (const std::bad_alloc&) {
    return fail(ErrorKind::kExhausted, dir.string() + ": there is not enough memory for it");
  }
}

std::shared_ptr<const AdapterWeights> AdapterStore::find(engine::AdapterId id, int rank) const {
  const int local = rank - spec_.first_rank;
  if (local < 0 || local >= spec_.local_ranks) return nullptr;
  std::shared_ptr<const Loaded> loaded;
  {
    const std::lock_guard lock(mutex_);
    const auto found = loaded_.find(id);
    if (found == loaded_.end()) return nullptr;
    loaded = found->second.lock();
  }
  if (!loaded) return nullptr;
  return {loaded, &loaded->ranks[static_cast<std::size_t>(local)]};
}

int AdapterStore::size() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int>(
      std::ranges::count_if(loaded_, [](const auto& entry) { return !entry.second.expired(); }));
}

}  // namespace dsm::model
