// A block and head of the KV cache as operand B of a tensor core's products (PTX mma.m16n8k16): 16
// inputs of 8 columns at a time, of which a lane has four values, straight from where they stand.
//
// For scores the inputs are dimensions and the columns positions; a lane's inputs are 4q .. 4q + 3
// of the step (q = lane % 4), as those of queries are (fragments.h). For sums over values the
// inputs are positions and the columns dimensions; there a lane's are value_slot()'s, which is
// where products of scores leave them whose columns 4g + j are those of product j
// (prompt_blocks.cuh).
//
// Values in FP32 are two BF16 terms, the nearest and what it leaves: 16 bits of their fractions.
// FP8 becomes BF16 exactly, since its scales are powers of two.
#pragma once

#include "kernels/cuda/fragments.h"
#include "kernels/cuda/kv_cache.cuh"

namespace dsm::kernels::cuda {

inline constexpr int kProductColumns = 8;
inline constexpr int kBlockProducts = kKvBlock / kProductColumns;  // of a block's scores
inline constexpr int kBlockSteps = kKvBlock / kStepInputs;         // of sums over its positions

DSM_HOST_DEVICE constexpr int key_steps(int key_dim) {
  return (key_dim + kStepInputs - 1) / kStepInputs;
}

// The first of two positions of a block that are slots of a lane in a step of sums over values:
// those of an operand's register p.
DSM_HOST_DEVICE constexpr int value_slot(int step, int lane, int p) {
  return step / 2 * 32 + lane % 4 * 8 + p * 4 + step % 2 * 2;
}

template <DType kType>
inline constexpr int kKvTerms = kType == DType::kF32 ? 2 : 1;

// A lane's part of 16 inputs and 8 columns, the larger term first.
template <DType kType>
struct alignas(8 * kKvTerms<kType>) KvOperand {
  std::uint32_t v[kKvTerms<kType>][2];
};

// The same as it comes from memory.
template <DType kType>
struct KvWords {
  KvOperand<kType> operand;
};
template <>
struct KvWords<DType::kF32> {
  float v[4];
};

template <DType kType>
__device__ __forceinline__ KvOperand<kType> operand(const KvWords<kType>& words) {
  if constexpr (kType == DType::kF32) {
    KvOperand<kType> b;
#pragma unroll
    for (int p = 0; p < 2; ++p) {
      const float first = words.v[2 * p];
      const float second = words.v[2 * p + 1];
      b.v[0][p] = bf16_pair(first, second);
      b.v[1][p] = bf16_pair(first - first_of(b.v[0][p]), second - second_of(b.v[0][p]));
    }
    return b;
  } else {
    return words.operand;
  }
}

// Two FP8 values, in the upper bytes of either half, times a scale each (BF16, stored times 2^120)
// as BF16, exactly: as bf16_pair_of_e4m3(), with the scale in its multiplication.
__device__ __forceinline__ std::uint32_t scaled_pair(std::uint32_t bytes, std::uint32_t scales) {
  const std::uint32_t small = (bytes & 0x80008000U) | (bytes & 0x7f007f00U) >> 4;
#if defined(__CUDA_ARCH__)
  return fma_bf16x2(small, scales, 0x80008000U);  // -0 twice, which changes no sum
#else
  return as_bits(first_of(small) * first_of(scales)) >> 16 |
         (as_bits(second_of(small) * second_of(scales)) & 0xffff0000U);
#endif
}
// A power of two as BF16, in the low half.
__device__ __forceinline__ std::uint32_t bf16_of_scale(float scale) {
  return as_bits(scale) >> 16;
}

// Dimensions [16 step, 16 step + 16) of a block's keys, zero from `dims` on, at positions
// 8 product .. + 7.
template <DType kType>
__device__ __forceinline__ KvWords<kType> load_key(const KeyBlock<kType>& keys, int dims, int step,
                                                   int product, int lane) {
  KvWords<kType> words;
  const int position = product * kProductColumns + lane / 4;
  const int first = first_input(step * kStepInputs, lane);
  if constexpr (kType == DType::kF32) {
    const float* from = reinterpret_cast<const float*>(keys.data) + first * kKvBlock + position;
#pragma unroll
    for (int i = 0; i < 4; ++i) words.v[i] = first + i < dims ? from[i * kKvBlock] : 0.0F;
  } else if (kType == DType::kBF16 || step * kStepInputs >= keys.scaled) {
    const auto* pairs =
        reinterpret_cast<const std::uint32_t*>(keys.data + std::int64_t{keys.scaled} * kKvBlock);
#pragma unroll
    for (int p = 0; p < 2; ++p) {
      words.operand.v[0][p] = pairs[((first - keys.scaled) / 2 + p) * kKvBlock + position];
    }
  } else {
    const std::uint32_t scale =
        bf16_of_scale(keys.scales[step * kStepInputs / kScaleBlock * kKvBlock + position]);
    const auto* from =
        reinterpret_cast<const std::uint8_t*>(keys.data) + first * kKvBlock + position;
#pragma unroll
    for (int p = 0; p < 2; ++p) {
      const std::uint32_t even = from[2 * p * kKvBlock];
      const std::uint32_t odd = from[(2 * p + 1) * kKvBlock];
      words.operand.v[0][p] = scaled_pair(even << 8 | odd << 24, scale | scale << 16);
    }
  }
  return words;
}

// Positions [16 step, 16 step + 16) of a block's values, zeros from `seen` on (what stands there
// was never written), columns 8 product .. + 7.
template <DType kType>
__device__ __forceinline__ KvWords<kType> load_value(const ValueBlock<kType>& values, int seen,
                                                     int step, int product, int lane) {
  KvWords<kType> words;
  const int column = product * kProductColumns + lane / 4;
#pragma unroll
  for (int p = 0; p < 2; ++p) {
    const int slot = value_slot(step, lane, p);
    const bool there = slot < seen;
    const bool both = slot + 1 < seen;
    if constexpr (kType == DType::kF32) {
      const float* from =
          reinterpret_cast<const float*>(values.data) + slot * values.width + column;
      words.v[2 * p] = there ? from[0] : 0.0F;
      words.v[2 * p + 1] = both ? from[values.width] : 0.0F;
    } else if constexpr (kType == DType::kBF16) {
      const auto* pairs = reinterpret_cast<const std::uint32_t*>(values.data);
      const std::uint32_t pair = there ? pairs[slot / 2 * values.width + column] : 0;
      words.operand.v[0][p] = both ? pair : pair & 0xffffU;
    } else {
      const auto* from =
          reinterpret_cast<const std::uint8_t*>(values.data) + slot * values.width + column;
      const float* scale = values.scales + column / kScaleBlock * kKvBlock + slot;
      const std::uint32_t even = there ? from[0] : 0;
      const std::uint32_t odd = both ? from[values.width] : 0;
      const std::uint32_t scales =
          (there ? bf16_of_scale(scale[0]) : 0U) | (both ? bf16_of_scale(scale[1]) << 16 : 0U);
      words.operand.v[0][p] = scaled_pair(even << 8 | odd << 24, scales);
    }
  }
  return words;
}

}  // namespace dsm::kernels::cuda
