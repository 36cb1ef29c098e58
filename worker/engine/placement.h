// Which of a group's KV caches a sequence is put into. Pure.
#pragma once

#include <optional>
#include <span>

namespace dsm::engine {

// What one cache has for a sequence. Numbers of blocks.
struct CacheOffer {
  int free = 0;     // that nobody holds, without those of `found`
  int reserve = 0;  // of them, to be left to those that run here
  int found = 0;    // with which the sequence's text begins, and whose contents are here
  int coming = 0;   // after these, that a running sequence is about to compute
  int kept = 0;     // whose contents are here for anybody
};

// The cache that has most room left when it has taken the sequence, which needs `blocks`. What is
// found there, or is coming, counts once more, because nobody computes it again. On a tie it is the
// cache that keeps least, so that new texts do not push out old ones while there is room elsewhere,
// then the first. Empty: no cache has room.
std::optional<int> choose_cache(std::span<const CacheOffer> offers, int blocks);

}  // namespace dsm::engine
