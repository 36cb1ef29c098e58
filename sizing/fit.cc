#include "sizing/fit.h"

#include <algorithm>
#include <cstdio>
#include <limits>
#include <vector>

namespace dsm::sizing {
namespace {

constexpr std::int64_t kMiB = 1 << 20;
constexpr std::int64_t kGiB = 1 << 30;

// A CPU worker's libraries, threads and connections; its tokenizer and grammar tables grow with the
// vocabulary.
constexpr std::int64_t kProcess = 96 * kMiB;
constexpr std::int64_t kProcessPerToken = 1 << 10;
// The context of a CUDA device, with the code of kernels and libraries.
constexpr std::int64_t kGpuContext = 1 * kGiB;
// Of what steps leave of a GPU's memory the worker gives nine tenths to the KV cache
// (--kv-cache-fraction), unless it is told a number of tokens.
constexpr std::int64_t kCacheTenths = 9;
// Of the memory: pages and chunks that are not full.
constexpr std::int64_t kSlackDivisor = 25;

// Cache bytes of an absurd number of tokens stay a number.
std::int64_t times(std::int64_t a, std::int64_t b) {
  std::int64_t product = 0;
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max() / 4;
  return __builtin_mul_overflow(a, b, &product) ? kMost : std::min(product, kMost);
}

std::int64_t whole_blocks(std::int64_t tokens) {
  return (tokens + kBlockTokens - 1) / kBlockTokens * kBlockTokens;
}

std::int64_t sharing(const Ask& ask) {
  return ask.device == Device::kCpu ? ask.sharing : 1;
}

std::int64_t own_reserve(const Shape& shape, const Ask& ask) {
  return ask.device == Device::kCpu ? kProcess + shape.vocab * kProcessPerToken
                                    : kGpuContext + later_bytes(ask.cut);
}

bool by_fraction(const Ask& ask) {
  return ask.device == Device::kGpu && ask.kv_tokens == 0;
}

std::string ranks(std::int64_t count) {
  return std::to_string(count) + (count == 1 ? " rank" : " ranks");
}

std::string holder(const Ask& ask) {
  return ask.device == Device::kCpu ? "a pod of " + ranks(sharing(ask)) : "each accelerator";
}

// The smallest memory that is enough, in whole GiB or, below two of them, in steps of 64 MiB.
std::string enough(const Fit& fit) {
  const std::int64_t bare = fit.need - fit.have / kSlackDivisor;
  const std::int64_t least = bare + bare / (kSlackDivisor - 1) + 1;
  if (least >= 2 * kGiB) return std::to_string((least + kGiB - 1) / kGiB) + "Gi";
  return std::to_string((least + 64 * kMiB - 1) / (64 * kMiB) * 64) + "Mi";
}

// What would make it fit, one change at a time.
std::string remedies(const Shape& shape, const Ask& ask, const Fit& found, const Words& words) {
  std::string text = "Raise " + std::string(words.memory) + " to " + enough(found);
  for (const std::int64_t tensor : {2, 4, 8}) {
    if (tensor <= ask.cut.tensor || !check_cut(shape, tensor)) continue;
    Ask more = ask;
    more.cut.tensor = tensor;
    if (!fit(shape, more, found.have).fits) continue;
    text += ", or set " + std::string(words.tensor) + " to " + std::to_string(tensor);
    break;
  }
  if (found.max_kv_tokens > 0) {
    const bool total = ask.kv_tokens > 0;
    text += ", or set " + std::string(total ? words.kv_tokens : words.context) + " to at most " +
            std::to_string(total ? found.max_kv_tokens : found.max_kv_tokens / caches_of(ask.cut));
  }
  return text;
}

}  // namespace

Need need_of(const Shape& shape, const Ask& ask, std::int64_t have) {
  const std::int64_t n = sharing(ask);
  const auto logits = [&](bool first) {
    return logit_bytes(shape, ask.cut, ask.step, ask.device, first);
  };
  return {.weights = n * weight_bytes(shape, ask.cut, ask.device),
          .scratch = n * scratch_bytes(shape, ask.cut, ask.step, ask.device) + logits(true) +
                     (n - 1) * logits(false),
          .reserve = own_reserve(shape, ask) + have / kSlackDivisor,
          .cache_per_token = n * cache_bytes_per_token(shape, ask.cut, ask.kv_type)};
}

Fit fit(const Shape& shape, const Ask& ask, std::int64_t have) {
  Fit made{.parts = need_of(shape, ask, have), .have = have};
  const std::int64_t caches = caches_of(ask.cut);
  const std::int64_t each =  // cache
      whole_blocks(ask.kv_tokens > 0 ? (ask.kv_tokens + caches - 1) / caches : ask.context);
  made.kv_tokens = times(each, caches);
  const std::int64_t cache = times(made.parts.cache_per_token, each);
  std::int64_t room = std::max<std::int64_t>(0, have - made.parts.fixed());
  if (by_fraction(ask)) {
    room = room / 10 * kCacheTenths;
    made.parts.reserve += (cache + kCacheTenths - 1) / kCacheTenths;
  }
  made.need = made.parts.fixed() + cache;
  made.max_kv_tokens = room / made.parts.cache_per_token / kBlockTokens * kBlockTokens * caches;
  made.fits = made.kv_tokens <= made.max_kv_tokens;
  return made;
}

std::string sentence(const Shape& shape, const Ask& ask, const Fit& fit, const Words& words) {
  const Need& parts = fit.parts;
  if (fit.fits) {
    return holder(ask) + " needs " + bytes_text(fit.need) + " of " + bytes_text(fit.have) +
           "; there is room for a KV cache of " + std::to_string(fit.max_kv_tokens) + " tokens";
  }
  return holder(ask) + " needs " + bytes_text(fit.need) + " (weights " + bytes_text(parts.weights) +
         ", KV cache of " + std::to_string(fit.kv_tokens) + " tokens " +
         bytes_text(times(parts.cache_per_token, fit.kv_tokens / caches_of(ask.cut))) +
         ", scratch memory " + bytes_text(parts.scratch) + ", reserve " +
         bytes_text(parts.reserve) + ") and has " + bytes_text(fit.have) + ". " +
         remedies(shape, ask, fit, words);
}

std::string bytes_text(std::int64_t bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes);
  std::size_t unit = 0;
  for (; value >= 1024 && unit + 1 < std::size(kUnits); ++unit) value /= 1024;
  char text[32];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.1f %s", value, kUnits[unit]);
  return text;
}

}  // namespace dsm::sizing
