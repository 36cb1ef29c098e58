// Products of many rows by the kernel for them, in the loose mode, on the device that is there. A
// GPU that cannot run it takes its other kernels.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <stdexcept>
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

// An activation is rounded by up to 2^-9 of itself; weights are about 0.1.
double bound(int k) {
  return 2e-3 * std::sqrt(k);
}

class WideBackendTest : public BackendTest {
 protected:
  WideBackendTest() {
    device_.backend = make_backend({.device = *find_device("auto"),
                                    .exact = false,
                                    .kernels = {.many_rows = ManyRows::kKernel}});
  }
};

TEST_F(WideBackendTest, LinearIsNearForEveryShape) {
  unsigned seed = 70;
  // Columns: parts of a panel, of a warpgroup and of a thread block, and more of each. Inputs: odd,
  // parts of a stage, fewer stages than are copied ahead, more than turns of the ring, and some
  // that are divided among thread blocks.
  for (const auto& [n, k] : {std::pair{1, 1},
                             {40, 31},
                             {64, 64},
                             {100, 130},
                             {200, 641},
                             {300, 300},
                             {520, 192},
                             {70, 1100},
                             {130, 3000}}) {
    const Weight w = plain_weight(n, k, DType::kBF16, ++seed);
    const PackedMatrix on_cpu = load(cpu_, w);
    const PackedMatrix on_device = load(device_, w);
    for (const int rows : {17, 33, 64, 65, 129, 300}) {
      if (kEmulated && std::int64_t{rows} * n * k > 70 * 200 * 700) continue;
      const int ldx = k + (rows % 2 == 0 ? (4 - k % 4) % 4 : 3);  // pairs can be loaded, or not
      const auto x = random_floats(size(rows) * size(ldx), ++seed);
      const bool adds = rows == 33 || rows == 129;
      const auto run = [&](const Side& side, const PackedMatrix& packed) {
        return linear(side, packed, {side.put(x), ldx}, rows, n + 1, adds);
      };
      expect_near(
          run(device_, on_device), run(cpu_, on_cpu), bound(k),
          "n " + std::to_string(n) + " k " + std::to_string(k) + " rows " + std::to_string(rows));
      if (HasFatalFailure()) return;
    }
  }
}

// Gates of 32 columns beside what they gate.
TEST_F(WideBackendTest, GroupsOfTokensAreNear) {
  const GatedProducts products = products_of_groups(
      90, [](int n, unsigned seed) { return plain_weight(n, 160, DType::kBF16, seed); });
  const auto x = random_floats(size(150) * 160, 91);
  const auto run = [&](const Side& side) { return products.of(side, {side.put(x), 160}, 160); };
  // Of products of two sums of up to 5, each within bound(160).
  expect_near(run(device_), run(cpu_), 0.1, "h");
}

TEST_F(WideBackendTest, ARowParallelProductAddsWhatWasThere) {
  const Weight w = plain_weight(200, 1500, DType::kBF16, 95);
  const auto h = random_floats(size(66) * 1500, 96);
  const auto run = [&](const Side& side) {
    return row_parallel(side, w, {side.put(h), 1500}, 66, 97);
  };
  expect_near(run(device_), run(cpu_), bound(1500), "y");
}

TEST_F(WideBackendTest, ABatchOfHeadsIsComputedInItsStrides) {
  expect_near(heads(device_), heads(cpu_), bound(32), "heads");
}

// The same by pairs of thread blocks.
class PairedBackendTest : public BackendTest {
 protected:
  PairedBackendTest() {
    device_.backend = make_backend({.device = *find_device("auto"), .exact = false});
  }
};

// Panels that a pair has not, rows that end within a tile, inputs that end within a stage, fewer
// stages than the ring has and more, and more pieces than pairs.
std::vector<PairedShape> paired_shapes() {
  if (!kOnGpu) return {{700, 70, 512}, {1000, 331, 700}, {64, 640, 1024}, {1100, 64, 1000}};
  return {{3990, 70, 1000}, {4000, 331, 1000}, {8192, 40, 2000}};
}

TEST_F(PairedBackendTest, LinearIsNearForEveryShape) {
  unsigned seed = 800;
  for (const auto& [n, k, rows] : paired_shapes()) {
    expect_paired(n, rows);
    const Weight w = plain_weight(n, k, DType::kBF16, ++seed);
    const PackedMatrix on_cpu = load(cpu_, w);
    const PackedMatrix on_device = load(device_, w);
    const bool adds = ++seed % 2 == 0;
    const int ldx = k + (adds ? 3 : (4 - k % 4) % 4);
    const auto x = random_floats(size(rows) * size(ldx), seed);
    const auto run = [&](const Side& side, const PackedMatrix& packed) {
      return linear(side, packed, {side.put(x), ldx}, rows, n + 1, adds);
    };
    expect_near(
        run(device_, on_device), run(cpu_, on_cpu), bound(k),
        "n " + std::to_string(n) + " k " + std::to_string(k) + " rows " + std::to_string(rows));
    if (HasFatalFailure()) return;
  }
}

TEST_F(PairedBackendTest, GatesAreBesideWhatTheyGate) {
  const auto [n, k, rows] = !kOnGpu ? PairedShape{704, 130, 520} : PairedShape{4032, 130, 500};
  const auto x = random_floats(size(rows) * size(k), 871);
  for (const bool begun : {false, true}) {
    const GatedProducts products =
        products_of_all(plain_weight(n, k, DType::kBF16, 870), rows, begun, 872);
    expect_paired(n, static_cast<int>(products.token.size()));
    const auto run = [&](const Side& side) { return products.of(side, {side.put(x), k}, n / 2); };
    expect_near(run(device_), run(cpu_), 0.15, begun ? "begun" : "h");
  }
}

TEST_F(PairedBackendTest, ResidualsAreAdded) {
  const auto [n, k, rows] = !kOnGpu ? PairedShape{700, 200, 512} : PairedShape{4000, 330, 1000};
  expect_paired(n, rows);
  const Weight w = plain_weight(n, k, DType::kBF16, 880);
  const auto h = random_floats(size(rows) * size(k), 881);
  const auto run = [&](const Side& side) {
    return row_parallel(side, w, {side.put(h), k}, rows, 882);
  };
  expect_near(run(device_), run(cpu_), bound(k), "y");
}

// Rows that only the next products read: of a norm for one and for two, and of SwiGLU, whose last
// stage has a panel of its own or half of one. What stands in memory for them is never looked at.
TEST_F(PairedBackendTest, RowsAreHeldForTheNextProducts) {
  const int rows = kOnGpu ? 1000 : 600;
  const int hidden = kOnGpu ? 272 : 144;  // a norm takes steps of 16
  for (const int inputs : {96, 130}) {
    const int width = kOnGpu ? 10 * inputs : inputs;
    const Weight up =
        plain_weight(2 * static_cast<int>(round_up(width, 32)), hidden, DType::kBF16, 1);
    const Weight down = plain_weight(hidden, width, DType::kBF16, 2);
    const Weight other = plain_weight(70, hidden, DType::kBF16, 3);
    const int ldh = static_cast<int>(round_up(width, 32));
    const auto x = random_floats(size(rows) * size(hidden), 900);
    const auto gain = random_floats(size(hidden), 901);
    std::vector<std::int32_t> token(size(rows));
    for (int t = 0; t < rows; ++t) token[size(t)] = t;
    const std::vector<float> ones(size(rows), 1.0F);
    const Group everyone{0, rows};
    const auto run = [&](const Side& side) {
      Backend& backend = *side.backend;
      const float* from = side.put(x);
      auto* normed = allocate<float>(backend, x.size());
      auto* h = allocate<float>(backend, size(rows) * size(ldh));
      auto* y = allocate<float>(backend, size(rows) * (2 * 70 + size(hidden)));
      const auto norm = [&](int products) {
        backend.rms_norm(
            {from, hidden, nullptr, side.put(gain), normed, hidden, rows, hidden, 1e-6F, products});
      };
      const PackedMatrix of_other = load(side, other);
      const PackedMatrix of_up = load(side, up);
      const SegmentedMatrix of_down = load_whole(side, down);
      float* out = y;
      norm(2);
      for (int i = 0; i < 2; ++i, out += rows * 70) {
        backend.linear(
            {.x = normed, .ldx = hidden, .w = &of_other, .y = out, .ldy = 70, .rows = rows});
      }
      norm(1);
      backend.gate_up({.x = normed,
                       .ldx = hidden,
                       .token = token.data(),
                       .weight = ones.data(),
                       .groups = &everyone,
                       .w = &of_up,
                       .group_count = 1,
                       .h = h,
                       .ldh = ldh,
                       .for_products = 1});
      backend.row_parallel({.h = h,
                            .ldh = ldh,
                            .token = token.data(),
                            .groups = &everyone,
                            .w = &of_down,
                            .group_count = 1,
                            .tokens = rows,
                            .y = out,
                            .ldy = hidden});
      return side.get(y, size(rows) * (2 * 70 + size(hidden)));
    };
    const auto got = run(device_);
    const auto wanted = run(cpu_);
    double error = 0;
    double square = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
      error += std::pow(got[i] - wanted[i], 2);
      square += std::pow(wanted[i], 2);
    }
    EXPECT_LT(std::sqrt(error / square), 0.01) << "inputs " << width;
  }
}

TEST_F(PairedBackendTest, RowsAreHeldForNoOtherProduct) {
  constexpr int kRows = 512;
  const Weight w = plain_weight(64, 64, DType::kBF16, 910);
  const PackedMatrix packed = load(device_, w);
  auto* x = device_.put(random_floats(size(kRows) * 64, 911));
  auto* normed = allocate<float>(*device_.backend, size(kRows) * 64);
  device_.backend->rms_norm({x, 64, nullptr, x, normed, 64, kRows, 64, 1e-6F, 1});
  const bool holds = device_.backend->takes_fp8();  // from 9.0 on
  const auto multiply = [&] {
    device_.backend->linear(
        {.x = x, .ldx = 64, .w = &packed, .y = normed, .ldy = 64, .rows = kRows});
  };
  if (holds) {
    EXPECT_THROW(multiply(), std::logic_error);
  } else {
    EXPECT_NO_THROW(multiply());
  }
  device_.backend->stage({}, {});  // the next step
  EXPECT_NO_THROW(multiply());
}

}  // namespace
}  // namespace dsm::device
