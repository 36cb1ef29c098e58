// The loose mode of the device that is there: activations are one BF16 term, so products are near
// the CPU's by their 8 bits. All sizes of tiles, for every type of weights; rows that a library
// takes where there is one (library_backend_gpu_test.cc).
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "worker/device/backend_fixture.h"
#include "worker/device/routing_fixture.h"
#include "worker/device/weights_fixture.h"

namespace dsm::device {
namespace {

using namespace kernels;

class LooseBackendTest : public BackendTest {
 protected:
  LooseBackendTest() {
    device_.backend = make_backend({.device = *find_device("auto"), .exact = false});
  }
};

std::vector<float> linear(const Side& side, const PackedMatrix& w, const std::vector<float>& x,
                          int rows) {
  auto* y = allocate<float>(*side.backend, size(rows) * size(w.n));
  side.backend->linear({.x = side.put(x), .ldx = w.k, .w = &w, .y = y, .ldy = w.n, .rows = rows});
  return side.get(y, size(rows) * size(w.n));
}

// Of weights of about 0.1: an activation is rounded by up to 2^-9 of itself.
double loose_bound(int k) {
  return 2e-3 * std::sqrt(k);
}

TEST_F(LooseBackendTest, LinearIsNearForEveryTileAndType) {
  unsigned seed = 20;
  for (const DType dtype : kTypes) {
    for (const int k : {300, 1100}) {
      const Weight w = weight(100, k, dtype, ++seed);
      const PackedMatrix on_cpu = load(cpu_, w);
      const PackedMatrix on_device = load(device_, w);
      for (const int rows : {1, 17, 20, 32, 33, 70}) {
        const auto x = random_floats(size(rows) * size(k), ++seed);
        expect_near(linear(device_, on_device, x, rows), linear(cpu_, on_cpu, x, rows),
                    loose_bound(k),
                    "k " + std::to_string(k) + " rows " + std::to_string(rows) + " type " +
                        std::to_string(static_cast<int>(dtype)));
        if (HasFatalFailure()) return;
      }
    }
  }
}

// More rows than operands are made of at a time, on the emulated GPU.
TEST_F(LooseBackendTest, ManyRowsAreTakenInParts) {
  const Weight w = weight(700, 300, DType::kBF16, 60);
  const PackedMatrix on_cpu = load(cpu_, w);
  const PackedMatrix on_device = load(device_, w);
  constexpr int kRows = 513;
  const auto x = random_floats(size(kRows) * 300, 61);
  expect_near(linear(device_, on_device, x, kRows), linear(cpu_, on_cpu, x, kRows),
              loose_bound(300), "rows");
}

// Tiles of 16, 32 and 64 rows of 8 experts.
TEST_F(LooseBackendTest, RoutedExpertsAreNearForEveryTileAndType) {
  for (const DType dtype : kTypes) {
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

}  // namespace
}  // namespace dsm::device
