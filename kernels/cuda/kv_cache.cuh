// Elements of the KV cache (KvLayer) on the device, with the CPU's bits (kernels/cpu/kv_cache.h):
// written by warps, a part of at most kScaleBlock elements each, read one by one.
#pragma once

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/numbers.h"
#include "kernels/params.h"

namespace dsm::kernels::cuda {

// One position of one head.
struct KvPlace {
  std::int64_t block;  // KV block * heads + head
  int slot;            // position in it
};

// key_block_bytes() and the others of params.h, for the device.
__device__ inline int value_bytes(DType dtype) {
  return dtype == DType::kF32 ? 4 : dtype == DType::kBF16 ? 2 : 1;
}
__device__ inline std::int64_t bytes_of_keys(const KvLayer& kv) {
  return std::int64_t{kKvBlock} *
         ((kv.key_dim - kv.plain_dim) * value_bytes(kv.dtype) + kv.plain_dim * 2);
}
__device__ inline std::int64_t bytes_of_values(const KvLayer& kv) {
  return std::int64_t{kKvBlock} * kv.value_dim * value_bytes(kv.dtype);
}
__device__ inline int scales_of_key(const KvLayer& kv) {
  return (kv.key_dim - kv.plain_dim + kScaleBlock - 1) / kScaleBlock;
}
__device__ inline int scales_of_value(const KvLayer& kv) {
  return (kv.value_dim + kScaleBlock - 1) / kScaleBlock;
}

__device__ inline KvPlace place_of(const KvLayer& kv, TokenPlace place, int head) {
  return {static_cast<std::int64_t>(place.block) * kv.heads + head, place.position % kKvBlock};
}

__device__ inline std::uint16_t bf16_of(float x) {
  return static_cast<std::uint16_t>(bf16_pair(x, 0.0F));
}
__device__ inline float float_of_bf16(std::uint16_t bits) {
  return as_float(std::uint32_t{bits} << 16);
}
// The bits of what nearest_e4m3_of gives.
__device__ inline std::uint8_t e4m3_bits(float x) {
  const float value = nearest_e4m3_of(x);
  const std::uint32_t bits = as_bits(value);
  const float magnitude = fabsf(value);
  const std::uint32_t low = magnitude < 0x1p-6F ? static_cast<std::uint32_t>(magnitude * 512.0F)
                                                : (bits >> 20 & 0x7ffU) - (120U << 3);
  return static_cast<std::uint8_t>((bits >> 24 & 0x80U) | (low & 0x7fU));
}
// Times 2^-120, as scales are stored times 2^120.
__device__ inline float small_float_of_e4m3(std::uint8_t bits) {
  const std::uint32_t x = bits;
  return as_float((x & 0x80U) << 24 | (x & 0x7fU) << 20);
}

// A warp's part of a row: a lane has the elements first + 32 j + lane, zeros from `count` on.
struct RowPart {
  static constexpr int kEach = kScaleBlock / 32;
  float v[kEach];
  int first;
  int count;
};

// The scale of a part, stored; the whole warp. NaN where one of the values is none or is infinite.
__device__ inline float put_scale(const RowPart& part, float* to) {
  float largest = 0.0F;
  float trouble = 0.0F;
#pragma unroll
  for (int j = 0; j < RowPart::kEach; ++j) {
    largest = fmaxf(largest, fabsf(part.v[j]));
    trouble += part.v[j] * 0.0F;
  }
  for (int step = 16; step > 0; step /= 2) {
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, step));
    trouble += __shfl_xor_sync(0xffffffffU, trouble, step);
  }
  const float scale = activation_scale_of(largest, true) + trouble;
  if (threadIdx.x % 32 == 0) *to = scale * 0x1p120F;
  return scale;
}
__device__ inline std::uint8_t scaled_bits(float x, float scale) {
  return scale == scale ? e4m3_bits(x / scale) : std::uint8_t{0};
}

__device__ inline std::int64_t pair_index(int i, int slot) {
  return static_cast<std::int64_t>(i / 2 * kKvBlock + slot) * 2 + i % 2;
}

// Calls put(element, value) for the lane's elements.
template <class Put>
__device__ void each_element(const RowPart& part, const Put& put) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int j = 0; j < RowPart::kEach; ++j) {
    if (j * 32 + lane < part.count) put(part.first + j * 32 + lane, part.v[j]);
  }
}

// A part of a key; of FP8's, `first` is a multiple of kScaleBlock.
__device__ inline void put_key(const KvLayer& kv, KvPlace place, const RowPart& part) {
  char* keys = static_cast<char*>(kv.keys) + place.block * bytes_of_keys(kv);
  const int slot = place.slot;
  const int scaled = kv.dtype == DType::kBF16 ? 0 : kv.key_dim - kv.plain_dim;
  if (kv.dtype == DType::kF32) {
    auto* to = reinterpret_cast<float*>(keys);
    each_element(part,
                 [&](int i, float x) { to[static_cast<std::int64_t>(i) * kKvBlock + slot] = x; });
  } else if (part.first >= scaled) {
    auto* to =
        reinterpret_cast<std::uint16_t*>(keys + static_cast<std::int64_t>(scaled) * kKvBlock);
    each_element(part, [&](int i, float x) { to[pair_index(i - scaled, slot)] = bf16_of(x); });
  } else {
    const std::int64_t block = place.block * scales_of_key(kv) + part.first / kScaleBlock;
    const float scale = put_scale(part, kv.key_scales + block * kKvBlock + slot);
    auto* to = reinterpret_cast<std::uint8_t*>(keys);
    each_element(part, [&](int i, float x) {
      to[static_cast<std::int64_t>(i) * kKvBlock + slot] = scaled_bits(x, scale);
    });
  }
}

// As put_key, of a value.
__device__ inline void put_value(const KvLayer& kv, KvPlace place, const RowPart& part) {
  char* values = static_cast<char*>(kv.values) + place.block * bytes_of_values(kv);
  const std::int64_t width = kv.value_dim;
  if (kv.dtype == DType::kF32) {
    auto* to = reinterpret_cast<float*>(values) + place.slot * width;
    each_element(part, [&](int i, float x) { to[i] = x; });
  } else if (kv.dtype == DType::kBF16) {
    auto* to =
        reinterpret_cast<std::uint16_t*>(values) + place.slot / 2 * width * 2 + place.slot % 2;
    each_element(part, [&](int i, float x) { to[2 * i] = bf16_of(x); });
  } else {
    const std::int64_t block = place.block * scales_of_value(kv) + part.first / kScaleBlock;
    const float scale = put_scale(part, kv.value_scales + block * kKvBlock + place.slot);
    auto* to = reinterpret_cast<std::uint8_t*>(values) + place.slot * width;
    each_element(part, [&](int i, float x) { to[i] = scaled_bits(x, scale); });
  }
}

// The keys of one block and head.
template <DType kType>
struct KeyBlock {
  const char* data;
  const float* scales;
  int scaled;  // dimensions before those in BF16

  __device__ KeyBlock(const KvLayer& kv, std::int64_t block)
      : data(static_cast<const char*>(kv.keys) + block * bytes_of_keys(kv)),
        scales(kv.key_scales + block * scales_of_key(kv) * kKvBlock),
        scaled(kType == DType::kF8E4M3 ? kv.key_dim - kv.plain_dim : 0) {}

  __device__ float at(int i, int slot) const {
    const std::int64_t place = static_cast<std::int64_t>(i) * kKvBlock + slot;
    if constexpr (kType == DType::kF32) {
      return reinterpret_cast<const float*>(data)[place];
    } else {
      if (i < scaled) {
        return small_float_of_e4m3(static_cast<std::uint8_t>(data[place])) *
               scales[i / kScaleBlock * kKvBlock + slot];
      }
      const auto* pairs = reinterpret_cast<const std::uint16_t*>(
          data + static_cast<std::int64_t>(scaled) * kKvBlock);
      return float_of_bf16(pairs[pair_index(i - scaled, slot)]);
    }
  }
};

// The values of one block and head.
template <DType kType>
struct ValueBlock {
  const char* data;
  const float* scales;
  int width;

  __device__ ValueBlock(const KvLayer& kv, std::int64_t block)
      : data(static_cast<const char*>(kv.values) + block * bytes_of_values(kv)),
        scales(kv.value_scales + block * scales_of_value(kv) * kKvBlock),
        width(kv.value_dim) {}

  __device__ float at(int slot, int i) const {
    const std::int64_t place = static_cast<std::int64_t>(slot) * width + i;
    if constexpr (kType == DType::kF32) {
      return reinterpret_cast<const float*>(data)[place];
    } else if constexpr (kType == DType::kBF16) {
      const std::int64_t pair = static_cast<std::int64_t>(slot / 2) * width + i;
      return float_of_bf16(reinterpret_cast<const std::uint16_t*>(data)[pair * 2 + slot % 2]);
    } else {
      return small_float_of_e4m3(static_cast<std::uint8_t>(data[place])) *
             scales[i / kScaleBlock * kKvBlock + slot];
    }
  }
};

}  // namespace dsm::kernels::cuda
