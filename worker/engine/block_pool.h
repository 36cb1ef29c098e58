// Ownership of KV blocks. A BlockRef is a counted reference to one block: copying it shares the
// block, dropping the last one frees it, so a block cannot leak. A freed block whose contents are
// in the prefix cache stays readable until its room is needed: free blocks without cached contents
// are handed out first, then cached ones, least recently freed first.
//
// Time is what advance() said last: it is only measured, and decides nothing.
//
// Not thread-safe: the scheduler's thread owns it. All BlockRefs die before their pool.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "worker/engine/batch.h"
#include "worker/engine/distribution.h"

namespace dsm::engine {

class BlockPool;

class BlockRef {
 public:
  BlockRef() = default;
  BlockRef(const BlockRef& other);
  BlockRef(BlockRef&& other) noexcept;
  BlockRef& operator=(BlockRef other) noexcept;
  ~BlockRef();

  BlockId id() const { return id_; }
  explicit operator bool() const { return pool_ != nullptr; }

 private:
  friend class BlockPool;
  BlockRef(BlockPool* pool, BlockId id) : pool_(pool), id_(id) {}

  BlockPool* pool_ = nullptr;
  BlockId id_ = -1;
};

// How long cached contents were kept and used.
struct BlockTimes {
  Distribution<kBlockSeconds> lifetime = {};           // from its allocation to its eviction
  Distribution<kBlockSeconds> idle_before_evict = {};  // from its last use to its eviction
  Distribution<kBlockSeconds> reuse_gap = {};          // from a use to the next

  void add(const BlockTimes& other) {
    lifetime.add(other.lifetime);
    idle_before_evict.add(other.idle_before_evict);
    reuse_gap.add(other.reuse_gap);
  }
  bool operator==(const BlockTimes&) const = default;
};

class BlockPool {
 public:
  explicit BlockPool(int num_blocks);
  ~BlockPool();
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;

  // A block for new contents; nullopt when all are referenced. Cached contents that lose their room
  // are reported to the eviction hook first.
  std::optional<BlockRef> allocate();
  // One more reference to a block whose contents are cached, free or not.
  BlockRef share(BlockId id);

  // Says whether the block's contents can be found again after it is freed.
  void set_cached(BlockId id, bool cached);
  void on_evict(std::function<void(BlockId)> hook) { evicted_ = std::move(hook); }

  void advance(TimePoint now) { now_ = now; }
  // Cached contents are used again; or are used no longer by somebody.
  void count_reuse(BlockId id);
  void touch(BlockId id);
  const BlockTimes& times() const { return times_; }

  int size() const { return static_cast<int>(blocks_.size()); }
  int free_count() const { return free_count_; }  // with no reference, cached or not
  int used_count() const { return size() - free_count_; }
  int ref_count(BlockId id) const;
  bool is_cached(BlockId id) const;

 private:
  friend class BlockRef;
  // The free list is linked through the blocks.
  struct Block {
    int refs = 0;
    bool cached = false;
    int prev = -1;
    int next = -1;
    TimePoint allocated = {};
    TimePoint used = {};  // the last time
  };

  void retain(BlockId id);
  void release(BlockId id) noexcept;
  void link_free(BlockId id, bool at_front) noexcept;
  void unlink_free(BlockId id) noexcept;
  Block& block(BlockId id) { return blocks_[static_cast<std::size_t>(id)]; }
  const Block& block(BlockId id) const { return blocks_[static_cast<std::size_t>(id)]; }

  std::vector<Block> blocks_;
  int first_free_ = -1;
  int last_free_ = -1;
  int free_count_ = 0;
  std::function<void(BlockId)> evicted_;
  TimePoint now_ = {};
  BlockTimes times_;
};

}  // namespace dsm::engine
