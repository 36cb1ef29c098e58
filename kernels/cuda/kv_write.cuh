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

// 1 / sqrt(mean(x^2) + eps): a chain for each thread, added in one fixed tree. The same on all
// threads, which call it together; others may still read warp_sum when this returns.
__device__ inline float inverse_norm(const float* x, int width, float eps,
                                     float (&warp_sum)[kKvWriteThreads / 32]) {
  const int thread = static_cast<int>(threadIdx.x);
  float sum = 0.0F;
  for (int i = thread; i < width; i += kKvWriteThreads) sum = fmaf(x[i], x[i], sum);
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffU, sum, step);
  if (thread % 32 == 0) warp_sum[thread / 32] = sum;
  __syncthreads();
  float all = warp_sum[0];
  for (int w = 1; w < kKvWriteThreads / 32; ++w) all += warp_sum[w];
  return 1.0F / sqrtf(all / static_cast<float>(width) + eps);
}

// A token's latent and rotated key. `warp_sum` as above.
__device__ inline void write_latent(const KvWriteParams& p, std::int64_t token,
                                    float (&warp_sum)[kKvWriteThreads / 32]) {
  const int position = p.places[token].position;
  const KvPlace place = place_of(p.kv, p.places[token], 0);
  const int latent = p.kv.value_dim;
  const float* from = p.kv_a + token * p.ld;
  const float inverse = inverse_norm(from, latent, p.eps, warp_sum);
  in_parts(
      latent, [&](int i) { return p.norm[i] * (from[i] * inverse); },
      [&](const RowPart& part) {
        put_key(p.kv, place, part);
        put_value(p.kv, place, part);
      });
  in_parts(
      p.kv.key_dim - latent, [&](int i) { return rotated(from + latent, i, p.rope, position); },
      [&](RowPart part) {
        part.first += latent;
        put_key(p.kv, place, part);
      });
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
