#include "worker/kv_size.h"

#include <algorithm>

namespace dsm::worker {
namespace {

constexpr sizing::Words kWords{.memory = "the memory limit",
                               .tensor = "--tensor-parallel",
                               .context = "--max-model-len",
                               .kv_tokens = "--kv-cache-tokens"};

// Numbers of tokens are ints in the engine; --kv-cache-tokens has the same bound.
constexpr std::int64_t kMostTokens = 1 << 30;

std::int64_t default_tokens(const sizing::Shape& shape, const sizing::Ask& ask) {
  return kDefaultKvBytes / sizing::cache_bytes_per_token(shape, ask.cut, ask.kv_type) *
         sizing::caches_of(ask.cut);
}

}  // namespace

Result<std::int64_t> kv_cache_tokens(const sizing::Shape& shape, const sizing::Ask& ask,
                                     const GivenMemory& memory) {
  std::int64_t affordable =
      memory.limit && !memory.adapters ? kMostTokens : default_tokens(shape, ask);
  if (memory.limit) {
    const sizing::Fit found = sizing::fit(shape, ask, *memory.limit);
    if (!found.fits) {
      return fail(ErrorKind::kInvalid,
                  "the model does not fit: " + sizing::sentence(shape, ask, found, kWords));
    }
    affordable = std::min(affordable, found.max_kv_tokens);
  }
  if (ask.kv_tokens > 0) return ask.kv_tokens;
  return std::max(sizing::caches_of(ask.cut) * ask.context,
                  std::min(ask.step.sequences * ask.context, affordable));
}

}  // namespace dsm::worker
