// Products of many rows in FP8 by weights in FP8, by the kernel for them, in the loose mode, on the
// device that is there. A GPU that cannot run it takes its other kernels.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/product_wide.h"
#include "worker/device/backend_fixture.h"
#include "worker/device/many_rows_fixture.h"
#include "worker/device/paired_fixture.h"
#include "worker/device/weights_fixture.h"

namespace dsm::device {
namespace {

using namespace kernels;

// As of FP8 by FP8 in the exact mode (linear_backend_test.cc).
double bound(int k) {
  return 3e-4 * std::sqrt(k);
}

class WideFp8BackendTest : public BackendTest {
 protected:
  WideFp8BackendTest() {
    device_.backend = make_backend({.device = *find_device("auto"),
                                    .exact = false,
                                    .kernels = {.many_rows = ManyRows::kKernel}});
  }
};

// Rows rounded to FP8. Where a backend takes FP8, the same in FP32 are not numbers: nobody may have
// read them.
InputRows rounded(const Side& side, const std::vector<float>& values, int rows, int width) {
  float* x = side.put(values);
  InputRows to{.x = x, .ld = width};
  const std::int64_t ld = round_up(width, kScaleBlock);
  if (side.backend->takes_fp8()) {
    to.fp8 = {allocate<std::uint8_t>(*side.backend, size(rows * ld)),
              allocate<float>(*side.backend, size(rows * ld / kScaleBlock)), ld};
  }
  side.backend->quantise(
      {.x = x, .ldx = width, .y = x, .ldy = width, .rows = rows, .width = width, .y_fp8 = to.fp8});
  if (side.backend->takes_fp8()) {
    const std::vector<float> nothing(values.size(), std::numeric_limits<float>::quiet_NaN());
    side.backend->wait();
    side.backend->write(x, nothing.data(), nothing.size() * sizeof(float));
  }
  return to;
}

std::vector<float> linear(const Side& side, const PackedMatrix& w, const std::vector<float>& x,
                          int rows, std::int64_t ldy, bool adds) {
  return linear(side, w, rounded(side, x, rows, w.k), rows, ldy, adds);
}

TEST_F(WideFp8BackendTest, LinearIsNearForEveryShape) {
  unsigned seed = 170;
  // Columns: parts of a panel and of a thread block, and more of each. Inputs: odd, parts of a
  // piece and of a stage, fewer stages than are copied ahead, more than turns of the ring, and some
  // that are divided among thread blocks.
  for (const auto& [n, k] : {std::pair{1, 1},
                             {40, 31},
                             {64, 128},
                             {100, 130},
                             {200, 641},
                             {300, 300},
                             {70, 1100},
                             {64, 2300},
                             {130, 3000}}) {
    const Weight w = fp8_weight(n, k, 0, ++seed);
    const PackedMatrix on_cpu = load(cpu_, w);
    const PackedMatrix on_device = load(device_, w);
    ASSERT_EQ(on_device.dtype, DType::kF8E4M3);
    for (const int rows : {17, 64, 65, 129, 300}) {
      if (kEmulated && std::int64_t{rows} * n * k > 70 * 200 * 700) continue;
      const auto x = random_floats(size(rows) * size(k), ++seed);
      const bool adds = rows == 65 || rows == 129;
      // Four sums can be stored at a time, or not.
      const std::int64_t ldy = rows % 2 == 0 ? round_up(n, 4) : n + 1;
      expect_near(
          linear(device_, on_device, x, rows, ldy, adds), linear(cpu_, on_cpu, x, rows, ldy, adds),
          bound(k),
          "n " + std::to_string(n) + " k " + std::to_string(k) + " rows " + std::to_string(rows));
      if (HasFatalFailure()) return;
    }
  }
}

TEST_F(WideFp8BackendTest, BiasAndWhatWasThereAreAddedFourAtATime) {
  const Weight w = fp8_weight(132, 200, 0, 190);
  const auto x = random_floats(size(70) * 200, 191);
  const auto run = [&](const Side& side) { return linear(side, load(side, w), x, 70, 136, true); };
  expect_near(run(device_), run(cpu_), bound(200), "y");
}

// The same rows by other weights, as experts and adapters have them; gates of 32 columns beside
// what they gate.
TEST_F(WideFp8BackendTest, GroupsOfTokensAreNear) {
  const GatedProducts products =
      products_of_groups(192, [](int n, unsigned seed) { return fp8_weight(n, 160, 0, 2 * seed); });
  const auto x = random_floats(size(150) * 160, 191);
  for (const std::int64_t ld : {160, 163}) {  // of what four can be stored at a time, or not
    const auto run = [&](const Side& side) {
      return products.of(side, rounded(side, x, 150, 160), ld);
    };
    // Of products of two sums of up to 5, each within bound(160).
    expect_near(run(device_), run(cpu_), 0.02, "h");
  }
}

TEST_F(WideFp8BackendTest, ARowParallelProductAddsWhatWasThere) {
  const Weight w = fp8_weight(200, 1536, 0, 195);
  const auto h = random_floats(size(66) * 1536, 196);
  const auto run = [&](const Side& side) {
    return row_parallel(side, w, rounded(side, h, 66, 1536), 66, 197);
  };
  expect_near(run(device_), run(cpu_), bound(1536), "y");
}

// Pairs of thread blocks beside the kernel above: sums have the same bits.
class PairedFp8BackendTest : public WideFp8BackendTest {
 protected:
  const Side paired_{
      make_backend({.device = *find_device("auto"), .exact = false, .kernels = all_kernels()})};
};

// Panels that a pair has not, rows that end within a tile, inputs that end within a stage and
// within a piece of one, fewer stages than the ring has and more, more pieces than pairs, and more
// tiles than stay together. None that the other kernel would divide among thread blocks.
std::vector<PairedShape> paired_shapes() {
  if (!kOnGpu) return {{699, 130, 512}, {1000, 331, 700}, {64, 1000, 1024}, {1100, 64, 1000}};
  return {{3990, 130, 1000}, {4000, 331, 1000}, {8192, 40, 2000}, {3000, 4200, 4300}};
}

TEST_F(PairedFp8BackendTest, SumsHaveTheBitsOfTheKernelForManyRows) {
  unsigned seed = 400;
  for (const auto& [n, k, rows] : paired_shapes()) {
    expect_paired(n, rows);
    const Weight w = fp8_weight(n, k, 0, ++seed);
    const auto x = random_floats(size(rows) * size(k), ++seed);
    for (const bool adds : {false, true}) {
      // Two sums can be stored at a time, or not.
      const std::int64_t ldy = adds ? n + n % 2 : n + 3;
      const auto run = [&](const Side& side) {
        return linear(side, load(side, w), x, rows, ldy, adds);
      };
      EXPECT_EQ(run(paired_), run(device_)) << "n " << n << " k " << k << " rows " << rows;
    }
  }
}

TEST_F(PairedFp8BackendTest, ResidualsAreAdded) {
  const auto [n, k, rows] = !kOnGpu ? PairedShape{700, 200, 512} : PairedShape{4000, 330, 1000};
  expect_paired(n, rows);
  const Weight w = fp8_weight(n, k, 0, 420);
  const auto h = random_floats(size(rows) * size(k), 421);
  const auto run = [&](const Side& side) {
    return row_parallel(side, w, rounded(side, h, rows, k), rows, 422);
  };
  EXPECT_EQ(run(paired_), run(device_));
}

// Tokens in another order and more than once; sums that have begun; four that can be stored at a
// time and not; the last panels are not a pair's.
TEST_F(PairedFp8BackendTest, GatesAreBesideWhatTheyGate) {
  const auto [n, k, rows] = !kOnGpu ? PairedShape{704, 130, 520} : PairedShape{4032, 130, 500};
  const auto x = random_floats(size(rows) * size(k), 431);
  for (const bool begun : {false, true}) {
    const GatedProducts products = products_of_all(fp8_weight(n, k, 0, 430), rows, begun, 432);
    expect_paired(n, static_cast<int>(products.token.size()));
    const auto run = [&](const Side& side) {
      return products.of(side, rounded(side, x, rows, k), n / 2 + (begun ? 1 : 0));
    };
    // Sums have the same bits, gates the device's exponential and quotient.
    expect_near(run(paired_), run(device_), 1e-4, begun ? "begun" : "h");
  }
}

}  // namespace
}  // namespace dsm::device
