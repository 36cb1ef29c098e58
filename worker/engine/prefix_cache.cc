#include "worker/engine/prefix_cache.h"

#include <algorithm>
#include <utility>

#include "worker/engine/invariant.h"

namespace dsm::engine {

PrefixCache::PrefixCache(BlockPool& pool, Hash128 hash_key, std::string kv_dtype)
    : pool_(pool),
      hash_key_(hash_key),
      kv_dtype_(std::move(kv_dtype)),
      entries_(static_cast<std::size_t>(pool.size())) {
  pool_.on_evict([this](BlockId id) { forget(id); });
}

PrefixCache::~PrefixCache() {
  pool_.on_evict(nullptr);
}

Hash128 PrefixCache::root(std::string_view salt, AdapterId adapter) const {
  SipHash128 hash(hash_key_);
  // With the zero behind it, which ends it.
  hash.update(std::as_bytes(std::span(kv_dtype_.c_str(), kv_dtype_.size() + 1)));
  hash.update(std::as_bytes(std::span(&adapter, 1)));
  hash.update(std::as_bytes(std::span(salt)));
  return hash.finish();
}

Hash128 PrefixCache::child(const Hash128& parent, std::span<const TokenId> tokens) const {
  SipHash128 hash(hash_key_);
  hash.update(std::as_bytes(std::span(&parent, 1)));
  hash.update(std::as_bytes(tokens));
  return hash.finish();
}

std::optional<BlockId> PrefixCache::look_up(const Hash128& key, const Hash128& parent,
                                            std::span<const TokenId> tokens) const {
  const auto it = by_key_.find(key);
  if (it == by_key_.end()) {
    return std::nullopt;
  }
  const Entry& entry = entries_[static_cast<std::size_t>(it->second)];
  if (!(entry.parent == parent) || !std::ranges::equal(entry.tokens, tokens)) {
    return std::nullopt;
  }
  return it->second;
}

std::optional<BlockRef> PrefixCache::find(const Hash128& key, const Hash128& parent,
                                          std::span<const TokenId> tokens) {
  const auto block = look_up(key, parent, tokens);
  if (!block) return std::nullopt;
  return pool_.share(*block);
}

void PrefixCache::insert(const Hash128& key, const Hash128& parent, std::span<const TokenId> tokens,
                         const BlockRef& block) {
  invariant(tokens.size() == kBlockTokens, "only full blocks are cached");
  if (pool_.is_cached(block.id()) || !by_key_.try_emplace(key, block.id()).second) {
    return;
  }
  Entry& entry = entries_[static_cast<std::size_t>(block.id())];
  entry.key = key;
  entry.parent = parent;
  std::ranges::copy(tokens, entry.tokens.begin());
  pool_.set_cached(block.id(), true);
}

void PrefixCache::clear() {
  for (BlockId id = 0; id < pool_.size(); ++id) {  // in id order, so that runs repeat exactly
    pool_.set_cached(id, false);
  }
  by_key_.clear();
}

void PrefixCache::forget(BlockId id) {
  by_key_.erase(entries_[static_cast<std::size_t>(id)].key);
}

}  // namespace dsm::engine
