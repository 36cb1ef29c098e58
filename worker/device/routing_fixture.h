// A router's choice and experts over it, for tests of backends.
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/group_experts.h"
#include "worker/device/backend_fixture.h"
#include "worker/device/weights_fixture.h"

namespace dsm::device {

// A router's choice for tokens of `top_k` of `experts` experts each, of which number 1 is left out,
// with what is made of it.
struct Routing {
  std::vector<std::int32_t> chosen;
  std::vector<float> weights;
  int tokens;
  int experts;
  int top_k;

  Routing(int count, int of, int take) : tokens(count), experts(of), top_k(take) {
    std::mt19937 random(33);
    std::vector<std::int32_t> ids;
    for (std::int32_t e = 0; e < experts; ++e) {
      if (e != 1) ids.push_back(e);
    }
    for (int t = 0; t < tokens; ++t) {
      std::shuffle(ids.begin(), ids.end(), random);
      std::sort(ids.begin(), ids.begin() + top_k);
      chosen.insert(chosen.end(), ids.begin(), ids.begin() + top_k);
    }
    weights = random_floats(chosen.size(), 34);
  }

  kernels::GroupExpertsParams put(const Side& side) const {
    const std::size_t slots = size(tokens) * size(1 + top_k);
    auto* to = allocate<std::int32_t>(*side.backend, chosen.size());
    side.backend->write(to, chosen.data(), chosen.size() * sizeof chosen[0]);
    return {.chosen = to,
            .weights = side.put(weights),
            .tokens = tokens,
            .experts = experts,
            .top_k = top_k,
            .token = allocate<std::int32_t>(*side.backend, slots),
            .weight = allocate<float>(*side.backend, slots),
            .groups = allocate<kernels::Group>(*side.backend, size(1 + experts)),
            .slot = allocate<std::int32_t>(*side.backend, slots)};
  }

  // The groups made by the host.
  kernels::GroupExpertsParams lists(const Side& side) const {
    const std::size_t slots = size(tokens) * size(1 + top_k);
    const kernels::GroupExpertsParams p{
        .chosen = chosen.data(),
        .weights = weights.data(),
        .tokens = tokens,
        .experts = experts,
        .top_k = top_k,
        .token = allocate_shared<std::int32_t>(*side.backend, slots),
        .weight = allocate_shared<float>(*side.backend, slots),
        .groups = allocate_shared<kernels::Group>(*side.backend, size(1 + experts)),
        .slot = allocate_shared<std::int32_t>(*side.backend, slots)};
    kernels::group_experts(p);
    return p;
  }
};

// Experts over such a choice, with the groups that the device has made of it or the host.
struct RoutedExperts {
  static constexpr int kHidden = 96;
  static constexpr int kOut = 208;
  std::vector<Weight> gate_up;
  std::vector<Weight> down;

  RoutedExperts(int experts, kernels::DType dtype) {
    for (int e = 0; e <= experts; ++e) {
      // The shared expert is in BF16 and wider, and some checkpoints mix types among experts.
      const kernels::DType type = e == 0 || e == 3 ? kernels::DType::kBF16 : dtype;
      const auto seed = static_cast<unsigned>(900 + 2 * e);
      gate_up.push_back(dsm::device::weight(e == 0 ? 640 : 320, kHidden, type, seed));
      down.push_back(dsm::device::weight(kOut, e == 0 ? 300 : 144, type, seed));
    }
  }

  std::vector<float> run(const Side& side, const Routing& routing, const std::vector<float>& x,
                         bool by_host = false) const {
    std::vector<kernels::PackedMatrix> up;
    std::vector<kernels::SegmentedMatrix> out;
    up.reserve(gate_up.size());
    out.reserve(down.size());
    for (const Weight& w : gate_up) up.push_back(load(side, w));
    for (const Weight& w : down) out.push_back(load_whole(side, w));
    constexpr std::int64_t kStride = 320;
    const kernels::GroupExpertsParams p = by_host ? routing.lists(side) : routing.put(side);
    const std::size_t slots = size(p.tokens) * size(1 + p.top_k);
    auto* h = allocate<float>(*side.backend, slots * kStride);
    auto* y = side.put(random_floats(size(p.tokens) * kOut, 13));
    if (!by_host) side.backend->group_experts(p);
    side.backend->gate_up({.x = side.put(x),
                           .ldx = kHidden,
                           .token = p.token,
                           .weight = p.weight,
                           .groups = p.groups,
                           .w = up.data(),
                           .group_count = 1 + p.experts,
                           .h = h,
                           .ldh = kStride,
                           .routing = by_host ? nullptr : &p});
    side.backend->row_parallel({.h = h,
                                .ldh = kStride,
                                .token = p.token,
                                .groups = p.groups,
                                .w = out.data(),
                                .group_count = 1 + p.experts,
                                .tokens = p.tokens,
                                .residual = y,
                                .y = y,
                                .ldy = kOut,
                                .routing = by_host ? nullptr : &p});
    return side.get(y, size(p.tokens) * kOut);
  }
};

}  // namespace dsm::device
