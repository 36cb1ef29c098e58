// Routed experts of prompts by the kernel for many rows, in the loose mode, on the device that is
// there. A GPU that cannot run it takes its other kernels.
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "worker/device/routing_fixture.h"
#include "worker/device/weights_fixture.h"

namespace dsm::device {
namespace {

using namespace kernels;

class RoutedWideBackendTest : public BackendTest {
 protected:
  RoutedWideBackendTest() {
    device_.backend = make_backend({.device = *find_device("auto"),
                                    .exact = false,
                                    .kernels = {.many_rows = ManyRows::kKernel}});
  }
};

// Of 8 experts, of which one is nobody's and one in BF16 stands among others: tiles of 64 and of
// 128 rows, which end within one, and of few rows, which are other kernels'.
TEST_F(RoutedWideBackendTest, RoutedExpertsAreNearInTilesOfEachSize) {
  for (const DType dtype : {DType::kBF16, DType::kInt8, DType::kInt4, DType::kF8E4M3}) {
    const RoutedExperts experts(8, dtype);
    for (const int tokens : {5, 50, 130}) {
      const Routing routing(tokens, 8, 3);
      const auto x = random_floats(size(tokens) * RoutedExperts::kHidden, 35);
      // Of sums of up to 50.
      expect_near(experts.run(device_, routing, x), experts.run(cpu_, routing, x), 0.5,
                  std::to_string(tokens) + " tokens");
      if (HasFatalFailure()) return;
    }
  }
}

// The other kernels add up in another order, so what comes out tells who has multiplied.
TEST_F(RoutedWideBackendTest, RoutedExpertsAreTheKernelsUnlessTheLibraryIsAskedFor) {
  const Side library{make_backend({.device = *find_device("auto"),
                                   .exact = false,
                                   .kernels = {.many_rows = ManyRows::kLibrary}})};
  const bool wide = device_.backend->name().starts_with("cuda/") && kEmulated;
  for (const DType dtype : {DType::kBF16, DType::kInt8, DType::kInt4}) {
    const RoutedExperts experts(8, dtype);
    for (const int tokens : {5, 130}) {
      const Routing routing(tokens, 8, 3);
      const auto x = random_floats(size(tokens) * RoutedExperts::kHidden, 35);
      const auto by_kernel = experts.run(device_, routing, x);
      const auto by_others = experts.run(library, routing, x);
      if (!wide) continue;  // which GPU this is is not known here
      EXPECT_EQ(by_kernel == by_others, tokens == 5) << tokens;
    }
  }
}

// All tokens choose one expert, and each a second: a group of several tiles beside groups that end
// within one. Inputs are divided among thread blocks.
TEST_F(RoutedWideBackendTest, GroupsOfVeryDifferentSizesAreNear) {
  constexpr int kTokens = 70;
  constexpr int kInputs = 1100;
  constexpr int kExperts = 4;
  Routing routing(kTokens, kExperts, 2);
  for (int t = 0; t < kTokens; ++t) {
    routing.chosen[size(2 * t)] = 0;
    routing.chosen[size(2 * t + 1)] = t < 3 ? 1 : 3;
  }
  std::vector<Weight> weights;
  for (unsigned g = 0; g <= kExperts; ++g) {
    weights.push_back(plain_weight(g == 0 ? 64 : 192, kInputs, DType::kBF16, 190 + g));
  }
  const auto x = random_floats(size(kTokens) * kInputs, 191, 0.2F);
  const auto run = [&](const Side& side) {
    std::vector<PackedMatrix> w;
    for (const Weight& weight : weights) w.push_back(load(side, weight));
    const GroupExpertsParams p = routing.put(side);
    auto* h = allocate<float>(*side.backend, size(kTokens) * 3 * 96);
    side.backend->clear(h, size(kTokens) * 3 * 96);
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
    return side.get(h, size(kTokens) * 3 * 96);
  };
  expect_near(run(device_), run(cpu_), 0.1, "h");
}

}  // namespace
}  // namespace dsm::device
