// How many tokens the KV cache of a group holds. Pure.
#pragma once

#include <cstdint>
#include <optional>

#include "base/result.h"
#include "sizing/fit.h"

namespace dsm::worker {

// Of one rank's cache at most, where no size is given and what else takes memory is not known.
inline constexpr std::int64_t kDefaultKvBytes = std::int64_t{1} << 30;

struct GivenMemory {
  std::optional<std::int64_t> limit;  // bytes of the process; empty: none is known
  bool adapters = false;              // come and go in it, and are not counted
};

// What was asked for; else room for as many of the longest requests as run at a time, within what
// the memory limit leaves (kDefaultKvBytes without a limit or with adapters), but for one request
// at least in each of the group's caches. With a limit, kInvalid and a sentence that says what to
// change when that is more than there is room for.
Result<std::int64_t> kv_cache_tokens(const sizing::Shape& shape, const sizing::Ask& ask,
                                     const GivenMemory& memory);

}  // namespace dsm::worker
