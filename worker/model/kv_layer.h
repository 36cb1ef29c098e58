// What a layer's KV cache keeps its values in, and how many.
#pragma once

#include <algorithm>
#include <optional>

#include "kernels/params.h"
#include "worker/device/backend.h"
#include "worker/model/kv_room.h"

namespace dsm::model {

struct KvSpec {
  int num_blocks = 0;                           // of engine::kBlockTokens tokens
  kernels::DType dtype = kernels::DType::kF32;  // kF32, kBF16 or kF8E4M3
  // With num_blocks 0: load() finds out how many there is room for, and make_cache() makes them.
  // With a number and where it is said at all: the largest steps run once when there is a cache.
  std::optional<KvRoom> room = std::nullopt;
  // Blocks of the longest past that scratch memory is made for, where the cache has fewer: a
  // trial's (kv_room.h).
  int past_blocks = 0;

  int longest_past() const { return std::max(num_blocks, past_blocks); }
};

// Caches of one layer. Grouped-query attention's has heads of `dim` values; latent attention's
// keeps its rotated part in BF16 where the latent is in FP8.
kernels::KvLayer make_grouped_cache(device::Backend& backend, const KvSpec& spec, int heads,
                                    int dim);
kernels::KvLayer make_latent_cache(device::Backend& backend, const KvSpec& spec, int latent,
                                   int rope);

}  // namespace dsm::model
