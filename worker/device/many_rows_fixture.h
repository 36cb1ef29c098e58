// Products of many rows that tests of several kernels ask for.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/device/backend_fixture.h"
#include "worker/device/routing_fixture.h"
#include "worker/device/weights_fixture.h"

namespace dsm::device {

struct Shape {
  int n;
  int k;
  int rows;
};

// y [rows, n + 1] of a product. `adds`: a bias and what stood there, and rows that are not aligned.
inline std::vector<float> linear(const Side& side, const Weight& weight, const Shape& shape,
                                 bool adds, unsigned seed) {
  const kernels::PackedMatrix w = load(side, weight);
  const int ldx = shape.k + (adds ? 3 : (4 - shape.k % 4) % 4);
  const std::int64_t ldy = shape.n + 1;
  auto* y = side.put(random_floats(size(shape.rows) * size(ldy), 5));
  side.backend->linear({.x = side.put(random_floats(size(shape.rows) * size(ldx), seed)),
                        .ldx = ldx,
                        .w = &w,
                        .bias = adds ? side.put(random_floats(size(w.n), 6)) : nullptr,
                        .y = y,
                        .ldy = ldy,
                        .rows = shape.rows,
                        .accumulate = adds});
  return side.get(y, size(shape.rows) * size(ldy));
}

// Products of three attention heads side by side, of 20 rows, [rows, heads, 48].
inline std::vector<float> heads(const Side& side) {
  constexpr int kHeads = 3;
  constexpr int kRows = 20;
  std::vector<Weight> w;
  w.reserve(kHeads);
  for (unsigned h = 0; h < kHeads; ++h) {
    w.push_back(plain_weight(48, 32, kernels::DType::kBF16, 600 + h));
  }
  const auto x = random_floats(size(kRows) * kHeads * 64, 7);
  std::vector<kernels::PackedMatrix> packed;
  packed.reserve(w.size());
  for (const Weight& head : w) packed.push_back(load(side, head));
  auto* y = allocate<float>(*side.backend, size(kRows) * kHeads * 48);
  side.backend->linear({.x = side.put(x),
                        .ldx = kHeads * 64,
                        .x_step = 64,
                        .w = packed.data(),
                        .y = y,
                        .ldy = kHeads * 48,
                        .y_step = 48,
                        .rows = kRows,
                        .batch = kHeads});
  return side.get(y, size(kRows) * kHeads * 48);
}

// Hidden parts of experts, [tokens * 3, 96], of which all tokens choose one, and each a second: a
// group of all beside groups that end within a tile. Inputs end within a second span.
inline std::vector<float> uneven_groups(const Side& side, int tokens) {
  constexpr int kInputs = 1100;
  constexpr int kExperts = 4;
  Routing routing(tokens, kExperts, 2);
  for (int t = 0; t < tokens; ++t) {
    routing.chosen[size(2 * t)] = 0;
    routing.chosen[size(2 * t + 1)] = t < 3 ? 1 : 3;
  }
  std::vector<Weight> weights;
  weights.reserve(1 + kExperts);
  for (unsigned g = 0; g <= kExperts; ++g) {
    weights.push_back(plain_weight(g == 0 ? 64 : 192, kInputs, kernels::DType::kBF16, 190 + g));
  }
  const auto x = random_floats(size(tokens) * kInputs, 191, 0.2F);
  std::vector<kernels::PackedMatrix> w;
  w.reserve(weights.size());
  for (const Weight& weight : weights) w.push_back(load(side, weight));
  const kernels::GroupExpertsParams p = routing.put(side);
  auto* h = allocate<float>(*side.backend, size(tokens) * 3 * 96);
  side.backend->clear(h, size(tokens) * 3 * 96);
  side.backend->group_experts(p);
  side.backend->gate_up({.x = side.put(x),
                         .ldx = kInputs,
                         .token = p.token,
                         .weight = p.weight,
                         .groups = p.groups,
                         .w = w.data(),
                         .group_count = 1 + kExperts,
                         .h = h,
                         .ldh = 96,
                         .routing = &p});
  return side.get(h, size(tokens) * 3 * 96);
}

}  // namespace dsm::device
