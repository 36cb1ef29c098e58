// The blocks of one KV cache and what is found in them. A group has one, of which every rank holds
// its part, or one for each rank, where ranks attend to sequences of their own
// (SchedulerConfig::kv_caches). Of the scheduler's thread.
#pragma once

#include <string>

#include "worker/engine/block_pool.h"
#include "worker/engine/prefix_cache.h"

namespace dsm::engine {

struct KvCache {
  // All caches of a group have one hash key, so that a block has the same key in each.
  KvCache(int num_blocks, Hash128 hash_key, const std::string& kv_dtype)
      : pool(num_blocks), prefixes(pool, hash_key, kv_dtype) {}

  // Room for the running ones to grow into, so that a newcomer is not preempted at once.
  int reserve() const { return running == 0 ? 0 : 1 + running / 16; }

  BlockPool pool;
  PrefixCache prefixes;
  int running = 0;  // sequences whose blocks are here
};

}  // namespace dsm::engine
