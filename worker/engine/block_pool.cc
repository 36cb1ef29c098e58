#include "worker/engine/block_pool.h"

#include <utility>

#include "worker/engine/invariant.h"

namespace dsm::engine {
namespace {

double seconds(TimePoint from, TimePoint to) {
  return std::chrono::duration<double>(to - from).count();
}

}  // namespace

BlockRef::BlockRef(const BlockRef& other) : pool_(other.pool_), id_(other.id_) {
  if (pool_ != nullptr) {
    pool_->retain(id_);
  }
}

BlockRef::BlockRef(BlockRef&& other) noexcept
    : pool_(std::exchange(other.pool_, nullptr)), id_(std::exchange(other.id_, -1)) {}

BlockRef& BlockRef::operator=(BlockRef other) noexcept {
  std::swap(pool_, other.pool_);
  std::swap(id_, other.id_);
  return *this;
}

BlockRef::~BlockRef() {
  if (pool_ != nullptr) {
    pool_->release(id_);
  }
}

BlockPool::BlockPool(int num_blocks) : blocks_(static_cast<std::size_t>(num_blocks)) {
  for (BlockId id = 0; id < num_blocks; ++id) {
    link_free(id, /*at_front=*/false);
  }
}

BlockPool::~BlockPool() {
  invariant(free_count_ == size(), "a block is still referenced when its pool is destroyed");
}

std::optional<BlockRef> BlockPool::allocate() {
  if (free_count_ == 0) {
    return std::nullopt;
  }
  const BlockId id = first_free_;
  Block& b = block(id);
  if (b.cached) {
    b.cached = false;
    times_.lifetime.add(seconds(b.allocated, now_));
    times_.idle_before_evict.add(seconds(b.used, now_));
    if (evicted_) {
      evicted_(id);
    }
  }
  unlink_free(id);
  b.refs = 1;
  b.allocated = b.used = now_;
  return BlockRef(this, id);
}

BlockRef BlockPool::share(BlockId id) {
  invariant(block(id).cached, "only blocks with cached contents are shared");
  retain(id);
  return BlockRef(this, id);
}

void BlockPool::count_reuse(BlockId id) {
  Block& b = block(id);
  times_.reuse_gap.add(seconds(b.used, now_));
  b.used = now_;
}

void BlockPool::touch(BlockId id) {
  block(id).used = now_;
}

void BlockPool::set_cached(BlockId id, bool cached) {
  Block& b = block(id);
  if (b.cached == cached) {
    return;
  }
  b.cached = cached;
  if (b.refs == 0) {  // its place in the free list follows from the flag
    unlink_free(id);
    link_free(id, /*at_front=*/!cached);
  }
}

int BlockPool::ref_count(BlockId id) const {
  return block(id).refs;
}
bool BlockPool::is_cached(BlockId id) const {
  return block(id).cached;
}

void BlockPool::retain(BlockId id) {
  Block& b = block(id);
  if (b.refs == 0) {
    unlink_free(id);
  }
  ++b.refs;
}

void BlockPool::release(BlockId id) noexcept {
  Block& b = block(id);
  invariant(b.refs > 0, "a block is released more often than referenced");
  if (--b.refs == 0) {
    link_free(id, /*at_front=*/!b.cached);
  }
}

void BlockPool::link_free(BlockId id, bool at_front) noexcept {
  Block& b = block(id);
  if (at_front) {
    b.prev = -1;
    b.next = first_free_;
    (first_free_ >= 0 ? block(first_free_).prev : last_free_) = id;
    first_free_ = id;
  } else {
    b.next = -1;
    b.prev = last_free_;
    (last_free_ >= 0 ? block(last_free_).next : first_free_) = id;
    last_free_ = id;
  }
  ++free_count_;
}

void BlockPool::unlink_free(BlockId id) noexcept {
  Block& b = block(id);
  (b.prev >= 0 ? block(b.prev).next : first_free_) = b.next;
  (b.next >= 0 ? block(b.next).prev : last_free_) = b.prev;
  b.prev = b.next = -1;
  --free_count_;
}

}  // namespace dsm::engine
