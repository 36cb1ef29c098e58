// Routers of the device that is there, and the groups of tokens that it makes of their choices: to
// the bit as the CPU's plain table. Experts over such groups up to a bound.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "worker/device/backend_fixture.h"
#include "worker/device/routing_fixture.h"
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

// Integers are copied as the bits that they are.
std::vector<std::int32_t> integers(const Side& side, const void* from, std::size_t count) {
  const auto bits = side.get(static_cast<const float*>(from), count);
  std::vector<std::int32_t> values(count);
  std::memcpy(values.data(), bits.data(), count * sizeof values[0]);
  return values;
}

TEST_F(BackendTest, ExpertsAreGroupedAsOnTheCpu) {
  constexpr std::array<int, 3> kShapes[] = {
      {1, 8, 2}, {5, 64, 6}, {40, 160, 6}, {300, 256, 8}, {1000, 64, 6}};
  for (const auto& [tokens, experts, top_k] : kShapes) {
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

// Near the CPU's, and for each token the bits that it has alone.
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
