// Whether a model fits into the memory it is given, and what to change when it does not. The
// operator asks before it makes a pod, dsmctl at a desk, the worker when it sizes its KV cache; all
// three say it in the same sentence. Pure.
#pragma once

#include <cstdint>
#include <string>

#include "sizing/memory.h"
#include "sizing/shape.h"

namespace dsm::sizing {

struct Ask {
  Device device = Device::kCpu;
  WeightCut cut = {};
  KvType kv_type = KvType::kF32;
  std::int64_t sharing = 1;  // ranks of one pod, which share its memory; GPUs have their own
  std::int64_t context = 0;  // tokens of the longest request
  // That the group shall cache; 0: one such request at least, in each of its caches.
  std::int64_t kv_tokens = 0;
  StepSize step = {};
};

// Bytes of the ranks that share a memory, the first rank among them.
struct Need {
  std::int64_t weights = 0;
  std::int64_t scratch = 0;  // with the logits
  // Everything else: libraries, the tokenizer, what allocators hold back; of a fit on a GPU also
  // what its worker leaves free beside the cache.
  std::int64_t reserve = 0;
  std::int64_t cache_per_token = 0;  // of a token in each rank's cache

  std::int64_t fixed() const { return weights + scratch + reserve; }
};
Need need_of(const Shape& shape, const Ask& ask, std::int64_t have);

struct Fit {
  bool fits = false;
  Need parts;
  std::int64_t have = 0;
  std::int64_t kv_tokens = 0;      // asked for, in whole blocks
  std::int64_t need = 0;           // with so many
  std::int64_t max_kv_tokens = 0;  // that there is room for; 0: not even the weights fit
};
Fit fit(const Shape& shape, const Ask& ask, std::int64_t have);

// How the reader of a sentence names what can be changed.
struct Words {
  const char* memory;
  const char* tensor;
  const char* context;
  const char* kv_tokens;
};

// "a pod of 2 ranks needs 17.3 GiB (...) and has 16.0 GiB. ...", with what would fit; when it fits,
// "a pod of 2 ranks needs 9.1 of 16.0 GiB; ...".
std::string sentence(const Shape& shape, const Ask& ask, const Fit& fit, const Words& words);

// "14.2 GiB", "97.5 MiB", "656 B".
std::string bytes_text(std::int64_t bytes);

}  // namespace dsm::sizing
