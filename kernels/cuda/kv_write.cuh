// Keys and values on their way into the cache, by a thread block of kKvWriteThreads.
#pragma once

#include "kernels/cuda/kv_cache.cuh"

namespace dsm::kernels::cuda {

inline constexpr int kKvWriteThreads = 256;

// Calls put(part) with the parts of [0, dim) that are this warp's; fill(i) computes an element.
template <class Fill, class Put>
__device__ void in_parts(int dim, const Fill& fill, const Put& put) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int first = static_cast<int>(threadIdx.x) / 32 * kScaleBlock; first < dim;
       first += kKvWriteThreads / 32 * kScaleBlock) {
    RowPart part{{}, first, dim - first < kScaleBlock ? dim - first : kScaleBlock};
#pragma unroll
    for (int j = 0; j < RowPart::kEach; ++j) {
      const int i = j * 32 + lane;
      part.v[j] = i < part.count ? fill(first + i) : 0.0F;
    }
    put(part);
  }
}

// Element i of x with its pairs turned by the angles of a position.
__device__ inline float rotated(const float* x, int i, const RopeTable& rope, int position) {
  const int pair = rope.halves ? i % rope.pairs : i / 2;
  const bool second = rope.halves ? i >= rope.pairs : i % 2 != 0;
  const std::int64_t angle = static_cast<std::int64_t>(position) * rope.pairs + pair;
  const float a = x[rope.halves ? pair : 2 * pair];
  const float b = x[rope.halves ? pair + rope.pairs : 2 * pair + 1];
  const float c = rope.cos[angle];
  const float s = rope.sin[angle];
  return second ? a * s + b * c : a * c - b * s;
}

// A token's key and value of a head.
__device__ inline void write_head(const KvWriteHeadsParams& p, std::int64_t token, int head) {
  const int position = p.places[token].position;
  const KvPlace place = place_of(p.kv, p.places[token], head);
  const float* k = p.k + token * p.ld + static_cast<std::int64_t>(head) * p.kv.key_dim;
  const float* v = p.v + token * p.ld + static_cast<std::int64_t>(head) * p.kv.value_dim;
  in_parts(
      p.kv.key_dim, [&](int i) { return rotated(k, i, p.rope, position); },
      [&](const RowPart& part) { put_key(p.kv, place, part); });
  in_parts(
      p.kv.value_dim, [&](int i) { return v[i]; },
      [&](const RowPart& part) { put_value(p.kv, place, part); });
}

}  // namespace dsm::kernels::cuda
