// Finds KV blocks whose contents were computed before. Only full blocks are in it. A block's key is
// a keyed 128-bit hash of its parent's key and its tokens; the chain starts from the hash of what
// blocks are kept in and the request's adapter and salt, so a hit means: all of them the same, and
// the same tokens from position 0 on. The hash key is random per process and the tokens are
// compared on a hit, so nobody can construct a false one.
//
// Holds no references: the pool reports when a cached block loses its room. Not thread-safe; dies
// before its pool.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "worker/engine/batch.h"
#include "worker/engine/block_pool.h"
#include "worker/engine/siphash.h"

namespace dsm::engine {

class PrefixCache {
 public:
  // `kv_dtype`: what the blocks' keys and values are kept in.
  PrefixCache(BlockPool& pool, Hash128 hash_key, std::string kv_dtype = {});
  ~PrefixCache();
  PrefixCache(const PrefixCache&) = delete;
  PrefixCache& operator=(const PrefixCache&) = delete;

  Hash128 root(std::string_view salt, AdapterId adapter = kNoAdapter) const;
  // The key of the block that holds these kBlockTokens tokens after `parent`.
  Hash128 child(const Hash128& parent, std::span<const TokenId> tokens) const;

  // The block with these contents. find() holds it.
  std::optional<BlockId> look_up(const Hash128& key, const Hash128& parent,
                                 std::span<const TokenId> tokens) const;
  std::optional<BlockRef> find(const Hash128& key, const Hash128& parent,
                               std::span<const TokenId> tokens);
  // The block now holds these contents. When the same contents are cached already, nothing changes.
  void insert(const Hash128& key, const Hash128& parent, std::span<const TokenId> tokens,
              const BlockRef& block);
  // Forgets everything: the contents of all blocks are lost.
  void clear();
  std::size_t size() const { return by_key_.size(); }

 private:
  struct Entry {
    Hash128 key;
    Hash128 parent;
    std::array<TokenId, kBlockTokens> tokens;
  };
  struct KeyHash {
    std::size_t operator()(const Hash128& key) const { return key.lo; }
  };

  void forget(BlockId id);

  BlockPool& pool_;
  Hash128 hash_key_;
  std::string kv_dtype_;
  std::unordered_map<Hash128, BlockId, KeyHash> by_key_;
  std::vector<Entry> entries_;  // by block id; meaningful where by_key_ points to it
};

}  // namespace dsm::engine
