// Bytes of one rank's weights, counted as the worker cuts them (worker/model/weights.h): heads, MLP
// and expert columns and the head's vocabulary are divided over the ranks; embedding, norms,
// router, indexer and the projections to the latents stand on each; KV heads are divided where
// there are enough, else repeated.
#pragma once

#include <cstdint>

#include "sizing/shape.h"

namespace dsm::sizing {

// What keeps the weights, and computes. Both have them in panels of 64 outputs (kernels/params.h),
// FP16 as FP32, vectors in FP32.
enum class Device {
  kCpu,  // in the deterministic mode row-parallel weights in segments
  kGpu,
};

struct WeightCut {
  std::int64_t tensor = 1;       // ranks that share the model
  bool drafts = false;           // with the multi-token-prediction layer
  bool deterministic = true;     // false: with what expands the keys of long prompts
  bool expert_parallel = false;  // ranks have whole experts, not a part of each
  // Ranks have latent attention whole, and a KV cache each for sequences of their own.
  bool data_parallel_attention = false;
  // 8 or 4: matrices of attention and MLPs are rounded to integers of so many bits, with an FP32
  // scale for each 128 inputs of an output, embedding and head to 8 bits; 0: they stay as they are
  // stored.
  int weight_bits = 0;
};

// Ranks between which the heads of attention are divided.
constexpr std::int64_t attention_ranks(const WeightCut& cut) {
  return cut.data_parallel_attention ? 1 : cut.tensor;
}

std::int64_t weight_bytes(const Shape& shape, const WeightCut& cut, Device device);

}  // namespace dsm::sizing
