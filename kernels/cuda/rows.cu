// Operators that go over a whole row: norms, and the writing of keys and values. A thread block has
// a row; its sum of squares is 256 chains, added in one fixed tree.
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/launch.h"

namespace dsm::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

// The same on all threads, which call it together.
__device__ float inverse_norm(const float* x, int width, float eps) {
  __shared__ float warp_sum[kWarps];
  const int thread = static_cast<int>(threadIdx.x);
  float sum = 0.0F;
  for (int i = thread; i < width; i += kThreads) sum = fmaf(x[i], x[i], sum);
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffU, sum, step);
  if (thread % 32 == 0) warp_sum[thread / 32] = sum;
  __syncthreads();
  float all = warp_sum[0];
  for (int w = 1; w < kWarps; ++w) all += warp_sum[w];
  return 1.0F / sqrtf(all / static_cast<float>(width) + eps);
}

__global__ void __launch_bounds__(kThreads) rms_norm_kernel(const RmsNormParams p) {
  const std::int64_t row = blockIdx.x;
  const float* x = p.x + (p.row_index != nullptr ? p.row_index[row] : row) * p.ldx;
  float* y = p.y + row * p.ldy;
  const float inverse = inverse_norm(x, p.width, p.eps);
  for (int i = static_cast<int>(threadIdx.x); i < p.width; i += kThreads) {
    y[i] = p.weight[i] * (x[i] * inverse);
  }
}

// Pairs of x turned by the angles of a position; element i of y at y[i * kKvBlock].
__device__ void rotate_key(const float* x, float* y, const RopeTable& rope, int position) {
  const std::int64_t angles = static_cast<std::int64_t>(position) * rope.pairs;
  for (int i = static_cast<int>(threadIdx.x); i < rope.pairs; i += kThreads) {
    const int first = rope.halves ? i : 2 * i;
    const int second = rope.halves ? i + rope.pairs : 2 * i + 1;
    const float c = rope.cos[angles + i];
    const float s = rope.sin[angles + i];
    y[first * kKvBlock] = x[first] * c - x[second] * s;
    y[second * kKvBlock] = x[first] * s + x[second] * c;
  }
}

__device__ float* key_at(const KvLayer& kv, TokenPlace place, int head) {
  return kv.keys +
         (static_cast<std::int64_t>(place.block) * kv.heads + head) * kKvBlock * kv.key_dim +
         place.position % kKvBlock;
}
__device__ float* value_at(const KvLayer& kv, TokenPlace place, int head) {
  return kv.values + ((static_cast<std::int64_t>(place.block) * kv.heads + head) * kKvBlock +
                      place.position % kKvBlock) *
                         kv.value_dim;
}

__global__ void __launch_bounds__(kThreads) kv_write_kernel(const KvWriteParams p) {
  const std::int64_t token = blockIdx.x;
  const TokenPlace place = p.places[token];
  const int latent = p.kv.value_dim;
  const float* from = p.kv_a + token * p.ld;
  float* value = value_at(p.kv, place, 0);
  float* key = key_at(p.kv, place, 0);
  const float inverse = inverse_norm(from, latent, p.eps);
  for (int i = static_cast<int>(threadIdx.x); i < latent; i += kThreads) {
    const float normed = p.norm[i] * (from[i] * inverse);
    value[i] = normed;
    key[static_cast<std::int64_t>(i) * kKvBlock] = normed;
  }
  rotate_key(from + latent, key + static_cast<std::int64_t>(latent) * kKvBlock, p.rope,
             place.position);
}

__global__ void __launch_bounds__(kThreads) kv_write_heads_kernel(const KvWriteHeadsParams p) {
  const std::int64_t token = blockIdx.x;
  const int head = static_cast<int>(blockIdx.y);
  const TokenPlace place = p.places[token];
  rotate_key(p.k + token * p.ld + head * p.kv.key_dim, key_at(p.kv, place, head), p.rope,
             place.position);
  const float* from = p.v + token * p.ld + head * p.kv.value_dim;
  float* value = value_at(p.kv, place, head);
  for (int i = static_cast<int>(threadIdx.x); i < p.kv.value_dim; i += kThreads) {
    value[i] = from[i];
  }
}

}  // namespace

void rms_norm(const RmsNormParams& p, Stream stream) {
  launch(rms_norm_kernel, static_cast<unsigned>(p.rows), kThreads, 0, stream, p);
}

void kv_write(const KvWriteParams& p, Stream stream) {
  launch(kv_write_kernel, static_cast<unsigned>(p.tokens), kThreads, 0, stream, p);
}

void kv_write_heads(const KvWriteHeadsParams& p, Stream stream) {
  const dim3 grid(static_cast<unsigned>(p.tokens), static_cast<unsigned>(p.kv.heads));
  launch(kv_write_heads_kernel, grid, kThreads, 0, stream, p);
}

}  // namespace dsm::kernels::cuda
