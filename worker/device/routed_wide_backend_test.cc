// Routed experts of prompts by the kernel for many rows, in the loose mode, on the device that is
// there. A GPU that cannot run it takes its other kernels.
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "worker/device/many_rows_fixture.h"
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
  expect_near(uneven_groups(device_, 70), uneven_groups(cpu_, 70), 0.1, "h");
}

}  // namespace
}  // namespace dsm::device
