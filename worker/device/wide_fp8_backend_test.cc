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
struct RoundedRows {
  float* x = nullptr;
  Fp8Rows fp8 = {};
};
RoundedRows rounded(const Side& side, const std::vector<float>& x, int rows, int width) {
  RoundedRows to{.x = side.put(x)};
  const std::int64_t ld = round_up(width, kScaleBlock);
  if (side.backend->takes_fp8()) {
    to.fp8 = {allocate<std::uint8_t>(*side.backend, size(rows * ld)),
              allocate<float>(*side.backend, size(rows * ld / kScaleBlock)), ld};
  }
  side.backend->quantise({.x = to.x,
                          .ldx = width,
                          .y = to.x,
                          .ldy = width,
                          .rows = rows,
                          .width = width,
                          .y_fp8 = to.fp8});
  if (side.backend->takes_fp8()) {
    const std::vector<float> nothing(x.size(), std::numeric_limits<float>::quiet_NaN());
    side.backend->wait();
    side.backend->write(to.x, nothing.data(), nothing.size() * sizeof(float));
  }
  return to;
}

std::vector<float> linear(const Side& side, const PackedMatrix& w, const std::vector<float>& x,
                          int rows, std::int64_t ldy, bool adds) {
  const RoundedRows in = rounded(side, x, rows, w.k);
  auto* y = side.put(random_floats(size(rows * ldy), 5));
  side.backend->linear({.x = in.x,
                        .ldx = w.k,
                        .w = &w,
                        .bias = adds ? side.put(random_floats(size(w.n), 6)) : nullptr,
                        .y = y,
                        .ldy = ldy,
                        .rows = rows,
                        .accumulate = adds,
                        .x_fp8 = in.fp8});
  return side.get(y, size(rows * ldy));
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

// The same rows by other weights, as experts and adapters have them: groups of all tokens, of more
// than a tile, of too few rows for the kernel and of none; gates of 32 columns beside what they
// gate.
TEST_F(WideFp8BackendTest, GroupsOfTokensAreNear) {
  constexpr int kInputs = 160;
  const std::vector<int> counts = {150, 70, 5, 0, 40};
  std::vector<Group> groups;
  std::vector<std::int32_t> token;
  for (const int count : counts) {
    const auto begin = static_cast<int>(token.size());
    for (int t = 0; t < count; ++t) token.push_back(t * (150 / std::max(count, 1)));
    groups.push_back({begin, static_cast<int>(token.size())});
  }
  std::vector<Weight> weights;
  weights.reserve(groups.size());
  for (unsigned g = 0; g < groups.size(); ++g) {
    weights.push_back(fp8_weight(g == 0 ? 320 : 128, kInputs, 0, 192 + 2 * g));
  }
  const auto x = random_floats(size(150) * kInputs, 191);
  const auto factors = random_floats(token.size(), 192, 0.3F);
  const auto start = random_floats(size(150) * 320, 193);
  for (const std::int64_t ld : {160, 163}) {  // of what four can be stored at a time, or not
    const auto run = [&](const Side& side) {
      std::vector<PackedMatrix> w;
      w.reserve(weights.size());
      for (const Weight& weight : weights) w.push_back(load(side, weight));
      const RoundedRows in = rounded(side, x, 150, kInputs);
      auto* h = allocate<float>(*side.backend, token.size() * size(ld));
      side.backend->clear(h, token.size() * size(ld));
      side.backend->gate_up({.x = in.x,
                             .ldx = kInputs,
                             .token = token.data(),
                             .weight = factors.data(),
                             .groups = groups.data(),
                             .w = w.data(),
                             .group_count = static_cast<int>(groups.size()),
                             .h = h,
                             .ldh = ld,
                             .start = side.put(start),
                             .lds = 320,
                             .x_fp8 = in.fp8});
      return side.get(h, token.size() * size(ld));
    };
    // Of products of two sums of up to 5, each within bound(kInputs).
    expect_near(run(device_), run(cpu_), 0.02, "h");
  }
}

TEST_F(WideFp8BackendTest, ARowParallelProductAddsWhatWasThere) {
  constexpr int kRows = 66;
  constexpr int kInputs = 1536;
  const Weight w = fp8_weight(200, kInputs, 0, 195);
  const auto h = random_floats(size(kRows) * kInputs, 196);
  const Group everyone{0, kRows};
  std::vector<std::int32_t> token(size(kRows));
  for (int t = 0; t < kRows; ++t) token[size(t)] = t;
  const auto run = [&](const Side& side) {
    const SegmentedMatrix packed = load_whole(side, w);
    const RoundedRows in = rounded(side, h, kRows, kInputs);
    auto* y = side.put(random_floats(size(kRows) * 200, 197));
    side.backend->row_parallel({.h = in.x,
                                .ldh = kInputs,
                                .token = token.data(),
                                .groups = &everyone,
                                .w = &packed,
                                .group_count = 1,
                                .tokens = kRows,
                                .residual = y,
                                .y = y,
                                .ldy = 200,
                                .h_fp8 = in.fp8});
    return side.get(y, size(kRows) * 200);
  };
  expect_near(run(device_), run(cpu_), bound(kInputs), "y");
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
  const Group everyone{0, rows};
  std::vector<std::int32_t> token(size(rows));
  for (int t = 0; t < rows; ++t) token[size(t)] = t;
  const auto run = [&](const Side& side) {
    const SegmentedMatrix packed = load_whole(side, w);
    const RoundedRows in = rounded(side, h, rows, k);
    auto* y = side.put(random_floats(size(rows) * size(n), 422));
    side.backend->row_parallel({.h = in.x,
                                .ldh = k,
                                .token = token.data(),
                                .groups = &everyone,
                                .w = &packed,
                                .group_count = 1,
                                .tokens = rows,
                                .residual = y,
                                .y = y,
                                .ldy = n,
                                .h_fp8 = in.fp8});
    return side.get(y, size(rows) * size(n));
  };
  EXPECT_EQ(run(paired_), run(device_));
}

// Tokens in another order and more than once; sums that have begun; four that can be stored at a
// time and not; the last panels are not a pair's.
TEST_F(PairedFp8BackendTest, GatesAreBesideWhatTheyGate) {
  const auto [n, k, rows] = !kOnGpu ? PairedShape{704, 130, 520} : PairedShape{4032, 130, 500};
  const int tokens = rows + 500;
  expect_paired(n, tokens);
  const Weight w = fp8_weight(n, k, 0, 430);
  const Group everyone{0, tokens};
  std::vector<std::int32_t> token(size(tokens));
  for (int t = 0; t < tokens; ++t) token[size(t)] = (t * 7) % rows;
  const auto x = random_floats(size(rows) * size(k), 431);
  const auto factors = random_floats(token.size(), 432, 0.3F);
  const auto start = random_floats(size(tokens) * size(n), 433);
  for (const bool begun : {false, true}) {
    const std::int64_t ldh = n / 2 + (begun ? 1 : 0);
    const auto run = [&](const Side& side) {
      const PackedMatrix packed = load(side, w);
      const RoundedRows in = rounded(side, x, rows, k);
      auto* h = allocate<float>(*side.backend, size(tokens) * size(ldh));
      side.backend->clear(h, size(tokens) * size(ldh));
      side.backend->gate_up({.x = in.x,
                             .ldx = k,
                             .token = token.data(),
                             .weight = factors.data(),
                             .groups = &everyone,
                             .w = &packed,
                             .group_count = 1,
                             .h = h,
                             .ldh = ldh,
                             .start = begun ? side.put(start) : nullptr,
                             .lds = n,
                             .x_fp8 = in.fp8});
      return side.get(h, size(tokens) * size(ldh));
    };
    // Sums have the same bits, gates the device's exponential and quotient.
    expect_near(run(paired_), run(device_), 1e-4, begun ? "begun" : "h");
  }
}

}  // namespace
}  // namespace dsm::device
