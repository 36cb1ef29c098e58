// Products of many rows that tests of several kernels ask for.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <utility>
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

// Rows that are multiplied; in FP8 as well where they have been rounded.
struct InputRows {
  const float* x = nullptr;  // [rows, ld]
  std::int64_t ld = 0;
  kernels::Fp8Rows fp8 = {};
};

// y [rows, ldy] of a product. `adds`: a bias and what stood there.
inline std::vector<float> linear(const Side& side, const kernels::PackedMatrix& w,
                                 const InputRows& in, int rows, std::int64_t ldy, bool adds) {
  auto* y = side.put(random_floats(size(rows) * size(ldy), 5));
  side.backend->linear({.x = in.x,
                        .ldx = in.ld,
                        .w = &w,
                        .bias = adds ? side.put(random_floats(size(w.n), 6)) : nullptr,
                        .y = y,
                        .ldy = ldy,
                        .rows = rows,
                        .accumulate = adds,
                        .x_fp8 = in.fp8});
  return side.get(y, size(rows) * size(ldy));
}

// y [rows, n] of a row-parallel product that is added to what stood there.
inline std::vector<float> row_parallel(const Side& side, const Weight& weight, const InputRows& in,
                                       int rows, unsigned seed) {
  const kernels::SegmentedMatrix packed = load_whole(side, weight);
  const kernels::Group everyone{0, rows};
  std::vector<std::int32_t> token(size(rows));
  std::iota(token.begin(), token.end(), 0);
  const std::size_t count = size(rows) * size(packed.part[0].n);
  auto* y = side.put(random_floats(count, seed));
  side.backend->row_parallel({.h = in.x,
                              .ldh = in.ld,
                              .token = token.data(),
                              .groups = &everyone,
                              .w = &packed,
                              .group_count = 1,
                              .tokens = rows,
                              .residual = y,
                              .y = y,
                              .ldy = packed.part[0].n,
                              .h_fp8 = in.fp8});
  return side.get(y, count);
}

// Gated products of rows that groups name.
struct GatedProducts {
  std::vector<Weight> weights = {};         // of each group
  std::vector<kernels::Group> groups = {};  // of slots
  std::vector<std::int32_t> token = {};     // of each slot
  std::vector<float> factors = {};          // likewise
  std::vector<float> start = {};            // that sums begin with, [rows, lds]; empty: nothing
  std::int64_t lds = 0;

  // h [slots, ldh].
  std::vector<float> of(const Side& side, const InputRows& in, std::int64_t ldh) const {
    std::vector<kernels::PackedMatrix> w;
    w.reserve(weights.size());
    for (const Weight& weight : weights) w.push_back(load(side, weight));
    auto* h = allocate<float>(*side.backend, token.size() * size(ldh));
    side.backend->clear(h, token.size() * size(ldh));
    side.backend->gate_up({.x = in.x,
                           .ldx = in.ld,
                           .token = token.data(),
                           .weight = factors.data(),
                           .groups = groups.data(),
                           .w = w.data(),
                           .group_count = static_cast<int>(groups.size()),
                           .h = h,
                           .ldh = ldh,
                           .start = start.empty() ? nullptr : side.put(start),
                           .lds = lds,
                           .x_fp8 = in.fp8});
    return side.get(h, token.size() * size(ldh));
  }
};

// Of 150 rows of 160 inputs, with sums that have begun: groups of all of them, of more than a tile,
// of too few for a kernel of many rows and of none. make(n, seed) is a weight.
template <class MakeWeight>
GatedProducts products_of_groups(unsigned seed, const MakeWeight& make) {
  GatedProducts products{.start = random_floats(size(150) * 320, seed + 3), .lds = 320};
  for (const int count : {150, 70, 5, 0, 40}) {
    const auto begin = static_cast<int>(products.token.size());
    for (int t = 0; t < count; ++t) products.token.push_back(t * (150 / std::max(count, 1)));
    products.groups.push_back({begin, static_cast<int>(products.token.size())});
    products.weights.push_back(make(begin == 0 ? 320 : 128, ++seed));
  }
  products.factors = random_floats(products.token.size(), seed + 2, 0.3F);
  return products;
}

// Of one group: all of so many rows, and 500 of them again, in another order.
inline GatedProducts products_of_all(Weight weight, int rows, bool begun, unsigned seed) {
  const int slots = rows + 500;
  GatedProducts products{.groups = {{0, slots}},
                         .factors = random_floats(size(slots), seed, 0.3F),
                         .lds = weight.piece.n};
  for (int t = 0; t < slots; ++t) products.token.push_back((t * 7) % rows);
  if (begun) products.start = random_floats(size(slots) * size(weight.piece.n), seed + 1);
  products.weights.push_back(std::move(weight));
  return products;
}

// y [rows, n + 1] of a product. `adds`: a bias and what stood there, and rows that are not aligned.
inline std::vector<float> linear(const Side& side, const Weight& weight, const Shape& shape,
                                 bool adds, unsigned seed) {
  const int ldx = shape.k + (adds ? 3 : (4 - shape.k % 4) % 4);
  const auto x = random_floats(size(shape.rows) * size(ldx), seed);
  return linear(side, load(side, weight), {side.put(x), ldx}, shape.rows, shape.n + 1, adds);
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
