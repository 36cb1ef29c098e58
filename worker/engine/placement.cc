#include "worker/engine/placement.h"

#include <tuple>

namespace dsm::engine {

std::optional<int> choose_cache(std::span<const CacheOffer> offers, int blocks) {
  std::optional<int> best;
  std::tuple<int, int> best_worth;
  for (std::size_t i = 0; i < offers.size(); ++i) {
    const CacheOffer& offer = offers[i];
    const int shared = offer.found + offer.coming;
    const int left = offer.free - (blocks - shared);
    if (left < offer.reserve) continue;
    const std::tuple<int, int> worth(left + shared, -offer.kept);
    if (best && worth <= best_worth) continue;
    best = static_cast<int>(i);
    best_worth = worth;
  }
  return best;
}

}  // namespace dsm::engine
