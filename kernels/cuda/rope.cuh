// Rope of queries, pair by pair.
#pragma once

#include "kernels/cuda/device.cuh"

namespace dsm::kernels::cuda {

// Pair number `item` of all heads of all tokens, if there is such; query may be q.
__device__ inline void turn_pair(const RopeQueryParams& p, std::int64_t item) {
  if (item >= static_cast<std::int64_t>(p.tokens) * p.heads * p.rope.pairs) return;
  const auto i = static_cast<int>(item % p.rope.pairs);
  const std::int64_t row = item / p.rope.pairs;  // token * heads + head
  const std::int64_t token = row / p.heads;
  const float* q = p.q + token * p.ldq + row % p.heads * p.head_dim + p.from;
  float* query = p.query + row * p.query_dim + p.at;
  const std::int64_t angle = static_cast<std::int64_t>(p.places[token].position) * p.rope.pairs + i;
  const int first = p.rope.halves ? i : 2 * i;
  const int second = p.rope.halves ? i + p.rope.pairs : 2 * i + 1;
  const float a = q[first];
  const float b = q[second];
  query[first] = a * p.rope.cos[angle] - b * p.rope.sin[angle];
  query[second] = a * p.rope.sin[angle] + b * p.rope.cos[angle];
}

}  // namespace dsm::kernels::cuda
