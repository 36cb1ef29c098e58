// Routers of the device that is there, and the groups of tokens that it makes of their choices: to
// the bit as the CPU's plain table. Experts over such groups up to a bound.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernels/group_experts.h"
#include "worker/device/backend_fixture.h"
#include "worker/device/weights_fixture.h"

namespace dsm::device {
namespace {

using namespace kernels;

TEST_F(BackendTest, TheRoutersChoiceIsExact) {
  constexpr int kTokens = 40;
  for (const auto& [experts, groups, topk_groups, top_k] :
       {std::array{8, 4, 2, 2}, {64, 1, 1, 6}, {160, 8, 3, 6}, {256, 8, 4, 8}}) {
    const std::int64_t ld = round_up(experts, 16);
    auto logits = random_floats(size(kTokens * ld), 29);
    // Few values, so that there are ties.
    for (std::size_t i = 0; i < logits.size() / 2; ++i) logits[i] = std::round(logits[i] * 2) / 2;
    const auto bias = random_floats(size(experts), 30, 0.1F);
    for (const RouterRule rule : {RouterRule::kSigmoidBias, RouterRule::kSoftmax}) {
      const auto run = [&](const Side& side, std::vector<std::int32_t>& chosen) {
        auto* to = allocate_shared<std::int32_t>(*side.backend, size(kTokens * top_k));
        auto* weights = allocate_shared<float>(*side.backend, size(kTokens * top_k));
        side.backend->router({.logits = side.put(logits),
                              .ld = ld,
                              .rule = rule,
                              .bias = side.put(bias),
                              .tokens = kTokens,
                              .experts = experts,
                              .groups = groups,
                              .topk_groups = topk_groups,
                              .top_k = top_k,
                              .normalise = rule == RouterRule::kSigmoidBias,
                              .scale = 2.5F,
                              .chosen = to,
                              .weights = weights});
        side.backend->wait();
        chosen.assign(to, to + kTokens * top_k);
        return std::vector<float>(weights, weights + kTokens * top_k);
      };
      std::vector<std::int32_t> on_device;
      std::vector<std::int32_t> on_cpu;
      const auto weights = run(device_, on_device);
      EXPECT_EQ(weights, run(cpu_, on_cpu));
      EXPECT_EQ(on_device, on_cpu);
    }
  }
}

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

  GroupExpertsParams put(const Side& side) const {
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
            .groups = allocate<Group>(*side.backend, size(1 + experts)),
            .slot = allocate<std::int32_t>(*side.backend, slots)};
  }

  // The groups made by the host.
  GroupExpertsParams lists(const Side& side) const {
    const std::size_t slots = size(tokens) * size(1 + top_k);
    const GroupExpertsParams p{.chosen = chosen.data(),
                               .weights = weights.data(),
                               .tokens = tokens,
                               .experts = experts,
                               .top_k = top_k,
                               .token = allocate_shared<std::int32_t>(*side.backend, slots),
                               .weight = allocate_shared<float>(*side.backend, slots),
                               .groups = allocate_shared<Group>(*side.backend, size(1 + experts)),
                               .slot = allocate_shared<std::int32_t>(*side.backend, slots)};
    kernels::group_experts(p);
    return p;
  }
};

// Integers are copied as the bits that they are.
std::vector<std::int32_t> integers(const Side& side, const void* from, std::size_t count) {
  const auto bits = side.get(static_cast<const float*>(from), count);
  std::vector<std::int32_t> values(count);
  std::memcpy(values.data(), bits.data(), count * sizeof values[0]);
  return values;
}

TEST_F(BackendTest, ExpertsAreGroupedAsOnTheCpu) {
  for (const auto& [tokens, experts, top_k] :
       {std::array{1, 8, 2}, {5, 64, 6}, {40, 160, 6}, {300, 256, 8}}) {
    const Routing routing(tokens, experts, top_k);
    const auto run = [&](const Side& side, bool half) {
      GroupExpertsParams p = routing.put(side);
      if (half) p.first_expert = p.experts /= 2;
      side.backend->group_experts(p);
      const std::size_t slots = size(tokens) * size(1 + top_k);
      std::vector<std::int32_t> all;
      for (const auto& [from, count] : {std::pair<const void*, std::size_t>{p.token, slots},
                                        {p.weight, slots},
                                        {p.groups, 2 * size(1 + experts)},
                                        {p.slot, slots}}) {
        const auto some = integers(side, from, count);
        all.insert(all.end(), some.begin(), some.end());
      }
      return all;
    };
    for (const bool half : {false, true}) {
      EXPECT_EQ(run(device_, half), run(cpu_, half)) << tokens << " tokens, half of them " << half;
    }
  }
}

// Experts whose groups the device has made: near the CPU's, and for each token the bits that it has
// alone.
struct RoutedExperts {
  static constexpr int kHidden = 96;
  static constexpr int kOut = 208;
  std::vector<Weight> gate_up;
  std::vector<Weight> down;

  RoutedExperts(int experts, DType dtype) {
    for (int e = 0; e <= experts; ++e) {
      // The shared expert is in BF16 and wider, and some checkpoints mix types among experts.
      const DType type = e == 0 || e == 3 ? DType::kBF16 : dtype;
      const auto seed = static_cast<unsigned>(900 + 2 * e);
      gate_up.push_back(dsm::device::weight(e == 0 ? 640 : 320, kHidden, type, seed));
      down.push_back(dsm::device::weight(kOut, e == 0 ? 300 : 144, type, seed));
    }
  }

  std::vector<float> run(const Side& side, const Routing& routing, const std::vector<float>& x,
                         bool by_host = false) const {
    std::vector<PackedMatrix> up;
    std::vector<SegmentedMatrix> out;
    up.reserve(gate_up.size());
    out.reserve(down.size());
    for (const Weight& w : gate_up) up.push_back(load(side, w));
    for (const Weight& w : down) out.push_back(load_whole(side, w));
    constexpr std::int64_t kStride = 320;
    const GroupExpertsParams p = by_host ? routing.lists(side) : routing.put(side);
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

TEST_F(BackendTest, RoutedExpertsAreNear) {
  for (const DType dtype : kTypes) {
    const RoutedExperts experts(8, dtype);
    for (const int tokens : {1, 5, 40, 130}) {
      const Routing routing(tokens, 8, 3);
      const auto x = random_floats(size(tokens) * RoutedExperts::kHidden, 35);
      // Of sums of up to 50.
      expect_near(experts.run(device_, routing, x), experts.run(cpu_, routing, x), 1e-3,
                  std::to_string(tokens) + " tokens");
    }
  }
}

TEST_F(BackendTest, ARoutedTokenHasTheSameBitsAloneAndAmongOthers) {
  const RoutedExperts experts(8, DType::kF8E4M3);
  const Routing many(130, 8, 3);
  const auto x = random_floats(size(130) * RoutedExperts::kHidden, 36);
  const auto all = experts.run(device_, many, x);
  Routing one = many;
  one.tokens = 1;
  one.chosen.resize(3);
  one.weights.resize(3);
  const auto alone = experts.run(device_, one, {x.begin(), x.begin() + RoutedExperts::kHidden});
  EXPECT_TRUE(std::equal(alone.begin(), alone.end(), all.begin()));
}

// So a row has the same bits with rows that have adapters beside it, for which the host makes the
// groups, and without.
TEST_F(BackendTest, ItMattersNotWhoHasMadeTheGroups) {
  for (const DType dtype : kTypes) {
    const RoutedExperts experts(8, dtype);
    for (const int tokens : {3, 130}) {
      const Routing routing(tokens, 8, 3);
      const auto x = random_floats(size(tokens) * RoutedExperts::kHidden, 41);
      EXPECT_EQ(experts.run(device_, routing, x), experts.run(device_, routing, x, true)) << tokens;
    }
  }
}

}  // namespace
}  // namespace dsm::device
