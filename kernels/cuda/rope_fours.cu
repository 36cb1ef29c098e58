// Of keys a thread block has 16 tokens and a head: lanes next to each other have tokens next to
// each other, whose keys are neighbours in a block of the cache, and each four dimensions, which
// are neighbours in memory. So both sides are moved by whole sectors.
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/fragments.h"
#include "kernels/cuda/rope_fours.h"

namespace dsm::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kTokens = 16;
constexpr int kGroups = kThreads / kTokens;
constexpr int kManyTokens = 64;

struct Turned {
  Four<float> first;
  Four<float> second;
};
// Pairs [pair, pair + 4) of x, turned by the angles of a position.
__device__ __forceinline__ Turned turned(const float* x, int pair, const RopeTable& rope,
                                         int position) {
  const std::int64_t angle = static_cast<std::int64_t>(position) * rope.pairs + pair;
  const Four<float> a = load_four(x + pair);
  const Four<float> b = load_four(x + rope.pairs + pair);
  const Four<float> c = load_four(rope.cos + angle);
  const Four<float> s = load_four(rope.sin + angle);
  Turned y;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    y.first.v[i] = a.v[i] * c.v[i] - b.v[i] * s.v[i];
    y.second.v[i] = a.v[i] * s.v[i] + b.v[i] * c.v[i];
  }
  return y;
}

__device__ __forceinline__ void store_four(float* to, const Four<float>& v) {
  *reinterpret_cast<Four<float>*>(to) = v;
}

__global__ void __launch_bounds__(kThreads) rope_query_fours_kernel(const RopeQueryParams p) {
  follow_previous_kernel();
  const std::int64_t item = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int fours = p.rope.pairs / 4;
  if (item >= static_cast<std::int64_t>(p.tokens) * p.heads * fours) return;
  const int pair = static_cast<int>(item % fours) * 4;
  const std::int64_t row = item / fours;  // token * heads + head
  const std::int64_t token = row / p.heads;
  const float* q = p.q + token * p.ldq + row % p.heads * p.head_dim + p.from;
  float* query = p.query + row * p.query_dim + p.at;
  const Turned y = turned(q, pair, p.rope, p.places[token].position);
  store_four(query + pair, y.first);
  store_four(query + p.rope.pairs + pair, y.second);
}

__global__ void __launch_bounds__(kThreads)
    kv_write_heads_fours_kernel(const KvWriteHeadsParams p) {
  follow_previous_kernel();
  const int thread = static_cast<int>(threadIdx.x);
  const std::int64_t token = static_cast<std::int64_t>(blockIdx.x) * kTokens + thread % kTokens;
  if (token >= p.tokens) return;
  const auto head = static_cast<std::int64_t>(blockIdx.y);
  const TokenPlace place = p.places[token];
  const std::int64_t block = std::int64_t{place.block} * p.kv.heads + head;
  const int slot = place.position % kKvBlock;
  const float* k = p.k + token * p.ld + head * p.kv.key_dim;
  const float* v = p.v + token * p.ld + head * p.kv.value_dim;
  float* keys = static_cast<float*>(p.kv.keys) + block * kKvBlock * p.kv.key_dim + slot;
  float* values = static_cast<float*>(p.kv.values) + (block * kKvBlock + slot) * p.kv.value_dim;
  for (int pair = thread / kTokens * 4; pair < p.rope.pairs; pair += kGroups * 4) {
    const Turned y = turned(k, pair, p.rope, place.position);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      keys[static_cast<std::int64_t>(pair + i) * kKvBlock] = y.first.v[i];
      keys[static_cast<std::int64_t>(p.rope.pairs + pair + i) * kKvBlock] = y.second.v[i];
    }
  }
  for (int i = thread / kTokens * 4; i < p.kv.value_dim; i += kGroups * 4) {
    store_four(values + i, load_four(v + i));
  }
}

bool aligned(const void* pointer) {
  return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0;
}
bool turns_in_fours(const RopeTable& rope) {
  return rope.halves && rope.pairs % 4 == 0 && aligned(rope.cos) && aligned(rope.sin);
}

}  // namespace

bool turns_in_fours(const RopeQueryParams& p) {
  return turns_in_fours(p.rope) && aligned(p.q) && aligned(p.query) && p.ldq % 4 == 0 &&
         p.head_dim % 4 == 0 && p.from % 4 == 0 && p.query_dim % 4 == 0 && p.at % 4 == 0;
}

void rope_query_fours(const RopeQueryParams& p, Stream stream) {
  const std::int64_t items = static_cast<std::int64_t>(p.tokens) * p.heads * (p.rope.pairs / 4);
  launch_early(rope_query_fours_kernel, static_cast<unsigned>((items + kThreads - 1) / kThreads),
               kThreads, 0, stream, p);
}

bool writes_in_fours(const KvWriteHeadsParams& p) {
  return p.tokens >= kManyTokens && p.kv.dtype == DType::kF32 && turns_in_fours(p.rope) &&
         aligned(p.k) && aligned(p.v) && p.ld % 4 == 0 && p.kv.key_dim % 4 == 0 &&
         p.kv.value_dim % 4 == 0 && aligned(p.kv.values);
}

void kv_write_heads_fours(const KvWriteHeadsParams& p, Stream stream) {
  const dim3 grid(static_cast<unsigned>((p.tokens + kTokens - 1) / kTokens),
                  static_cast<unsigned>(p.kv.heads));
  launch_early(kv_write_heads_fours_kernel, grid, kThreads, 0, stream, p);
}

}  // namespace dsm::kernels::cuda
