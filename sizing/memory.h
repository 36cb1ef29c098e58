// What a rank keeps in memory beside its weights: the KV cache, scratch memory for one step,
// logits. On CPUs and GPUs what the graph of the model allocates (worker/model), to the byte; on
// GPUs what its operators take, too, at most. Tests compare both with what is allocated. Pure.
#pragma once

#include <cstdint>

#include "sizing/shape.h"
#include "sizing/weights.h"

namespace dsm::sizing {

// Tokens of a KV block: what a cache's size is a multiple of.
inline constexpr std::int64_t kBlockTokens = 64;

// What keys and values are kept in.
enum class KvType {
  kF32,
  kBf16,
  kFp8,  // a scale for each 128 values; a latent's rotated key in BF16
};

// KV caches of a group: one, of which every rank has its part of each token, or one for each rank.
constexpr std::int64_t caches_of(const WeightCut& cut) {
  return cut.data_parallel_attention ? cut.tensor : 1;
}

// Of one token, in all layers of one rank.
std::int64_t cache_bytes_per_token(const Shape& shape, const WeightCut& cut, KvType type);

// What one step takes at most.
struct StepSize {
  std::int64_t batch_tokens = 512;
  std::int64_t sequences = 16;
};

// Of one rank, for a cache that holds the model's longest sequence.
std::int64_t scratch_bytes(const Shape& shape, const WeightCut& cut, const StepSize& step,
                           Device device);

// Of it, what operators take beside what they are given (worker/device), at most.
std::int64_t operator_bytes(const Shape& shape, const WeightCut& cut, const StepSize& step,
                            Device device);

// Of a rank; the first one gathers all of them. On a CPU every token of a step may be asked for its
// logits (prompt_logprobs), which are copied for that; on a GPU those copies are the host's.
std::int64_t logit_bytes(const Shape& shape, const WeightCut& cut, const StepSize& step,
                         Device device, bool first_rank);

// What a GPU's memory is taken for after a worker has seen how much of it steps leave: recorded
// steps, and between ranks the buffers of collectives. An estimate.
std::int64_t later_bytes(const WeightCut& cut);

}  // namespace dsm::sizing
