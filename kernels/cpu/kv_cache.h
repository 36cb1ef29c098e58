// Elements of the KV cache (KvLayer), written in parts of at most kScaleBlock and read one by one.
// kernels.h says why nothing here may be shared between instruction sets.
#pragma once

#include "kernels/cpu/quantise.h"
#include "kernels/params.h"

namespace dsm::kernels {
namespace {

// One position of one head.
struct KvPlace {
  std::int64_t block;  // KV block * heads + head
  int slot;            // position in it
};

inline KvPlace place_of(const KvLayer& kv, TokenPlace place, int head) {
  return {static_cast<std::int64_t>(place.block) * kv.heads + head, place.position % kKvBlock};
}

// The nearest, on a tie the even one.
inline std::uint16_t bf16_of(float x) {
  const auto bits = __builtin_bit_cast(std::uint32_t, x);
  if (x != x) return static_cast<std::uint16_t>(bits >> 16 | 0x40U);  // rounding could end a NaN
  return static_cast<std::uint16_t>((bits + 0x7fffU + (bits >> 16 & 1U)) >> 16);
}
inline float float_of_bf16(std::uint16_t bits) {
  return __builtin_bit_cast(float, static_cast<std::uint32_t>(bits) << 16);
}

// The bits of what nearest_e4m3 gives.
inline std::uint8_t e4m3_bits(float x) {
  const float value = nearest_e4m3(x);
  const auto bits = __builtin_bit_cast(std::uint32_t, value);
  const float magnitude = __builtin_fabsf(value);
  const std::uint32_t low = magnitude < 0x1p-6F ? static_cast<std::uint32_t>(magnitude * 512.0F)
                                                : (bits >> 20 & 0x7ffU) - (120U << 3);
  return static_cast<std::uint8_t>((bits >> 24 & 0x80U) | (low & 0x7fU));
}
// Times 2^-120, as scales are stored times 2^120.
inline float small_float_of_e4m3(std::uint8_t bits) {
  const std::uint32_t x = bits;
  return __builtin_bit_cast(float, (x & 0x80U) << 24 | (x & 0x7fU) << 20);
}

// The scale of a part, stored. NaN where one of the values is none or is infinite.
inline float put_scale(const float* part, int count, float* to) {
  float largest = 0.0F;
  float trouble = 0.0F;
  for (int i = 0; i < count; ++i) {
    const float magnitude = __builtin_fabsf(part[i]);
    largest = magnitude > largest ? magnitude : largest;
    trouble += part[i] * 0.0F;
  }
  const float scale = activation_scale(largest, true) + trouble;
  *to = scale * 0x1p120F;
  return scale;
}

inline std::uint8_t scaled_bits(float x, float scale) {
  const float value = x / scale;  // at most 448: the scale was rounded up
  return scale == scale ? e4m3_bits(value) : std::uint8_t{0};
}

// Where a key's BF16 pairs begin and which element they begin with; FP8 has some after its values.
struct KeyPairs {
  std::uint16_t* at;
  int first;
};
inline KeyPairs key_pairs(const KvLayer& kv, std::int64_t block) {
  char* keys = static_cast<char*>(kv.keys) + block * key_block_bytes(kv);
  if (kv.dtype == DType::kBF16) return {reinterpret_cast<std::uint16_t*>(keys), 0};
  const int first = kv.key_dim - kv.plain_dim;
  return {reinterpret_cast<std::uint16_t*>(keys + first * kKvBlock), first};
}
inline int pair_index(int i, int slot) {
  return (i / 2 * kKvBlock + slot) * 2 + i % 2;
}

// Elements [first, first + count) of a key; of FP8's, `first` is a multiple of kScaleBlock.
inline void put_key(const KvLayer& kv, KvPlace place, int first, const float* part, int count) {
  char* keys = static_cast<char*>(kv.keys) + place.block * key_block_bytes(kv);
  if (kv.dtype == DType::kF32) {
    auto* to = reinterpret_cast<float*>(keys) + place.slot;
    for (int i = 0; i < count; ++i) to[(first + i) * kKvBlock] = part[i];
    return;
  }
  const KeyPairs pairs = key_pairs(kv, place.block);
  if (first >= pairs.first) {
    for (int i = 0; i < count; ++i) {
      pairs.at[pair_index(first - pairs.first + i, place.slot)] = bf16_of(part[i]);
    }
    return;
  }
  const std::int64_t block = place.block * key_scales_of(kv) + first / kScaleBlock;
  const float scale = put_scale(part, count, kv.key_scales + block * kKvBlock + place.slot);
  for (int i = 0; i < count; ++i) {
    keys[(first + i) * kKvBlock + place.slot] = static_cast<char>(scaled_bits(part[i], scale));
  }
}

// As put_key, of a value.
inline void put_value(const KvLayer& kv, KvPlace place, int first, const float* part, int count) {
  char* values = static_cast<char*>(kv.values) + place.block * value_block_bytes(kv);
  if (kv.dtype == DType::kF32) {
    auto* to = reinterpret_cast<float*>(values) + place.slot * kv.value_dim + first;
    for (int i = 0; i < count; ++i) to[i] = part[i];
  } else if (kv.dtype == DType::kBF16) {
    auto* to = reinterpret_cast<std::uint16_t*>(values) +
               (place.slot / 2 * kv.value_dim + first) * 2 + place.slot % 2;
    for (int i = 0; i < count; ++i) to[2 * i] = bf16_of(part[i]);
  } else {
    const std::int64_t block = place.block * value_scales_of(kv) + first / kScaleBlock;
    const float scale = put_scale(part, count, kv.value_scales + block * kKvBlock + place.slot);
    char* to = values + place.slot * kv.value_dim + first;
    for (int i = 0; i < count; ++i) to[i] = static_cast<char>(scaled_bits(part[i], scale));
  }
}

inline float key_element(const KvLayer& kv, KvPlace place, int i) {
  const char* keys = static_cast<const char*>(kv.keys) + place.block * key_block_bytes(kv);
  if (kv.dtype == DType::kF32) {
    return reinterpret_cast<const float*>(keys)[i * kKvBlock + place.slot];
  }
  const KeyPairs pairs = key_pairs(kv, place.block);
  if (i >= pairs.first) {
    return float_of_bf16(pairs.at[pair_index(i - pairs.first, place.slot)]);
  }
  const std::int64_t block = place.block * key_scales_of(kv) + i / kScaleBlock;
  return small_float_of_e4m3(static_cast<std::uint8_t>(keys[i * kKvBlock + place.slot])) *
         kv.key_scales[block * kKvBlock + place.slot];
}

inline float value_element(const KvLayer& kv, KvPlace place, int i) {
  const char* values = static_cast<const char*>(kv.values) + place.block * value_block_bytes(kv);
  if (kv.dtype == DType::kF32) {
    return reinterpret_cast<const float*>(values)[place.slot * kv.value_dim + i];
  }
  if (kv.dtype == DType::kBF16) {
    const auto* pairs = reinterpret_cast<const std::uint16_t*>(values);
    return float_of_bf16(pairs[(place.slot / 2 * kv.value_dim + i) * 2 + place.slot % 2]);
  }
  const std::int64_t block = place.block * value_scales_of(kv) + i / kScaleBlock;
  return small_float_of_e4m3(static_cast<std::uint8_t>(values[place.slot * kv.value_dim + i])) *
         kv.value_scales[block * kKvBlock + place.slot];
}

}  // namespace
}  // namespace dsm::kernels
