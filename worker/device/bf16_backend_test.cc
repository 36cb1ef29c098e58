// Products of many rows by the processor's instructions for BF16, against the plain table: near by
// the 8 bits that an activation keeps, and, of activations and weights that are BF16, by the order
// of sums alone. Skipped on a processor that has none.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "kernels/cpu/bf16_ops.h"
#include "worker/device/backend_fixture.h"
#include "worker/device/cpu_backend.h"
#include "worker/device/experts_fixture.h"
#include "worker/device/weights_fixture.h"

namespace dsm::device {
namespace {

using namespace kernels;

class Bf16BackendTest : public BackendTest {
 protected:
  void SetUp() override {
    if (bf16_ops() == nullptr) GTEST_SKIP() << "this processor has none";
    device_.backend = make_cpu_backend(2, best_ops(), bf16_ops());
  }
};

struct LinearCase {
  int rows;
  int pad = 0;
  bool bias = false;
  bool accumulate = false;
};
std::vector<float> linear(const Side& side, const PackedMatrix& w, const std::vector<float>& x,
                          const LinearCase& c) {
  const std::int64_t ldy = w.n + c.pad;
  auto* y = side.put(random_floats(size(c.rows * ldy), 5));
  side.backend->linear({.x = side.put(x),
                        .ldx = w.k + c.pad,
                        .w = &w,
                        .bias = c.bias ? side.put(random_floats(size(w.n), 6)) : nullptr,
                        .y = y,
                        .ldy = ldy,
                        .rows = c.rows,
                        .accumulate = c.accumulate});
  return side.get(y, size(c.rows * ldy));
}

std::vector<float> rounded_floats(std::size_t count, unsigned seed) {
  auto values = random_floats(count, seed);
  for (float& value : values) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, &value, 4);
    bits &= 0xffff0000U;
    std::memcpy(&value, &bits, 4);
  }
  return values;
}

TEST_F(Bf16BackendTest, OfBf16OnBothSidesOnlyTheOrderOfSumsDiffers) {
  unsigned seed = 100;
  for (const int n : {1, 40, 64, 100, 300}) {
    for (const int k : {1, 2, 31, 32, 33, 64, 300, 511, 1024, 1100}) {
      const Weight w = plain_weight(n, k, DType::kBF16, ++seed);
      const PackedMatrix on_cpu = load(cpu_, w);
      const PackedMatrix on_device = load(device_, w);
      for (const int rows : {4, 15, 16, 17, 33, 300}) {
        if (rows > 33 && n * k > 64 * 300 && k != 1100) continue;
        const LinearCase c{rows, rows % 2 == 0 ? 0 : 3, rows == 15, rows == 17};
        const auto x = rounded_floats(size(rows) * size(k + c.pad), ++seed);
        expect_near(
            linear(device_, on_device, x, c), linear(cpu_, on_cpu, x, c),
            1e-6 * std::sqrt(k) + 1e-6,
            "n " + std::to_string(n) + " k " + std::to_string(k) + " rows " + std::to_string(rows));
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_F(Bf16BackendTest, LinearIsNearForEveryType) {
  unsigned seed = 20;
  for (const DType dtype : kTypes) {
    for (const int k : {1, 77, 300, 1100}) {
      const Weight w = weight(100, k, dtype, ++seed);
      const PackedMatrix on_cpu = load(cpu_, w);
      const PackedMatrix on_device = load(device_, w);
      for (const int rows : {16, 17, 70, 200}) {
        const auto x = random_floats(size(rows) * size(k), ++seed);
        const auto got = linear(device_, on_device, x, {rows});
        const auto wanted = linear(cpu_, on_cpu, x, {rows});
        const std::string what = "k " + std::to_string(k) + " rows " + std::to_string(rows) +
                                 " type " + std::to_string(static_cast<int>(dtype));
        // Of weights of about 0.1: activations are rounded by up to 2^-8 of themselves, and so are
        // weights that are not BF16.
        expect_near(got, wanted, 3e-3 * std::sqrt(k) + 3e-3, what);
        if (HasFatalFailure()) return;
        // FP32 is the table's, and so are some rows by integers.
        const bool others = dtype == DType::kF32 || (is_integer(dtype) && rows < 192);
        EXPECT_EQ(got == wanted, others) << what;
      }
    }
  }
}

TEST_F(Bf16BackendTest, FewRowsAreTheTables) {
  for (const DType dtype : kTypes) {
    const Weight w = weight(100, 300, dtype, 3);
    const auto x = random_floats(size(3) * 300, 4);
    EXPECT_EQ(linear(device_, load(device_, w), x, {3}), linear(cpu_, load(cpu_, w), x, {3}));
  }
}

// More rows than there is memory for operands of.
TEST_F(Bf16BackendTest, ManyRowsAreTakenInParts) {
  constexpr int kInputs = 5000;
  constexpr int kRows = 3000;
  const Weight w = plain_weight(64, kInputs, DType::kBF16, 60);
  const PackedMatrix packed = load(device_, w);
  const auto x = random_floats(size(kRows) * kInputs, 61);
  const auto all = linear(device_, packed, x, {kRows});
  const auto few = linear(device_, packed, {x.end() - 20 * kInputs, x.end()}, {20});
  EXPECT_TRUE(std::equal(few.begin(), few.end(), all.end() - 20 * 64));
}

// Attention heads have a weight each.
TEST_F(Bf16BackendTest, EachProductOfABatchHasItsRowsAndItsWeight) {
  constexpr int kBatch = 3;
  constexpr int kRows = 20;
  constexpr int kInputs = 50;
  constexpr int kOutputs = 70;
  const auto x = random_floats(size(kRows) * kBatch * kInputs, 7);
  std::vector<Weight> weights;
  weights.reserve(kBatch);
  for (unsigned b = 0; b < kBatch; ++b) {
    weights.push_back(plain_weight(kOutputs, kInputs, DType::kBF16, 8 + b));
  }
  const auto run = [&](const Side& side) {
    std::vector<PackedMatrix> packed;
    packed.reserve(weights.size());
    for (const Weight& w : weights) packed.push_back(load(side, w));
    auto* y = allocate<float>(*side.backend, size(kRows) * kBatch * kOutputs);
    side.backend->linear({.x = side.put(x),
                          .ldx = kBatch * kInputs,
                          .x_step = kInputs,
                          .w = packed.data(),
                          .y = y,
                          .ldy = kBatch * kOutputs,
                          .y_step = kOutputs,
                          .rows = kRows,
                          .batch = kBatch});
    return side.get(y, size(kRows) * kBatch * kOutputs);
  };
  expect_near(run(device_), run(cpu_), 3e-3 * std::sqrt(kInputs), "batch");
}

TEST_F(Bf16BackendTest, ExpertsAreNearForEveryType) {
  for (const DType dtype : kTypes) {
    for (const int tokens : {2, 5, 40, 300}) {
      const Experts experts(tokens, 6, dtype);
      const auto x = random_floats(size(tokens) * Experts::kHidden, 14);
      const auto wanted = experts.run(cpu_, x);
      const float most = std::ranges::max(wanted, {}, [](float y) { return std::abs(y); });
      expect_near(
          experts.run(device_, x), wanted, 0.01 * std::abs(most),
          std::to_string(tokens) + " tokens, type " + std::to_string(static_cast<int>(dtype)));
      if (HasFatalFailure()) return;
    }
  }
}

// Hidden parts that adapters are added to, and sums that they go on, which are the table's.
TEST_F(Bf16BackendTest, AdaptersAreNear) {
  constexpr int kTokens = 40;
  const Experts mixture(kTokens, 3, DType::kBF16);
  Experts::Adapted adapted{.start = random_floats(size(kTokens) * 640, 34),
                           .down = {},
                           .groups = {{0, 20}},
                           .token = {}};
  for (int t = 0; t < kTokens; t += 2) adapted.token.push_back(t);
  adapted.down.push_back(weight(Experts::kOut, 8, DType::kF32, 35));
  const auto x = random_floats(size(kTokens) * Experts::kHidden, 14);
  expect_near(mixture.run(device_, x, &adapted), mixture.run(cpu_, x, &adapted), 0.05, "adapted");
}

// As a rank has them: inputs in segments of any width, more tokens than one work item takes.
TEST_F(Bf16BackendTest, RowParallelSumsAreNearInSegments) {
  constexpr int kTokens = 600;
  constexpr int kWidths[] = {33, 64, 1, 70};
  constexpr int kInputs = 33 + 64 + 1 + 70;
  const std::vector<Group> groups = {{0, kTokens}};
  std::vector<std::int32_t> token(kTokens);
  std::iota(token.begin(), token.end(), 0);
  for (const int n : {80, 304}) {
    for (const bool residual : {true, false}) {
      const auto run = [&](const Side& side) {
        SegmentedMatrix w;
        std::vector<Weight> parts;
        for (const int width : kWidths) {
          parts.push_back(plain_weight(n, width, DType::kBF16, 90 + static_cast<unsigned>(width)));
          w.offset[w.count] = w.count == 0 ? 0 : w.offset[w.count - 1] + w.part[w.count - 1].k;
          w.part[w.count++] = load(side, parts.back());
        }
        auto* y = side.put(random_floats(size(kTokens) * size(n), 73));
        side.backend->row_parallel({.h = side.put(random_floats(size(kTokens) * kInputs, 74)),
                                    .ldh = kInputs,
                                    .token = token.data(),
                                    .groups = groups.data(),
                                    .w = &w,
                                    .group_count = 1,
                                    .tokens = kTokens,
                                    .residual = residual ? y : nullptr,
                                    .y = y,
                                    .ldy = n});
        return side.get(y, size(kTokens) * size(n));
      };
      expect_near(run(device_), run(cpu_), 3e-3 * std::sqrt(kInputs), std::to_string(n));
      if (HasFatalFailure()) return;
    }
  }
}

// What a row-parallel product alone reads need not be written: the same bits, wherever the segments
// of its inputs begin.
TEST_F(Bf16BackendTest, RowsThatAProductAloneReadsAreKeptAsItsOperands) {
  constexpr int kInputs = 70;
  constexpr int kWidth = 168;
  constexpr int kStride = 192;
  constexpr int kOut = 80;
  constexpr float kUntouched = 7.0F;
  const Weight up = plain_weight(2 * kWidth, kInputs, DType::kBF16, 80);
  for (const int tokens : {16, 45, 600}) {
    std::vector<std::int32_t> token(size(tokens));
    std::iota(token.begin(), token.end(), 0);
    const std::vector<float> ones(size(tokens), 1.0F);
    const Group group{0, tokens};
    const auto x = random_floats(size(tokens) * kInputs, 81);
    for (const std::vector<int>& widths :
         {std::vector<int>{168}, {64, 96, 8}, {33, 64, 1, 70}, {96}}) {
      const auto run = [&](int for_products, bool& written) {
        const PackedMatrix gate_up = load(device_, up);
        SegmentedMatrix down;
        for (const int width : widths) {
          const int at = down.count;
          const auto seed = 82 + static_cast<unsigned>(width);
          down.offset[at] = at == 0 ? 0 : down.offset[at - 1] + down.part[at - 1].k;
          down.part[down.count++] = load(device_, plain_weight(kOut, width, DType::kBF16, seed));
        }
        float* const h = device_.put(std::vector<float>(size(tokens) * kStride, kUntouched));
        float* const y = allocate<float>(*device_.backend, size(tokens) * kOut);
        device_.backend->gate_up({.x = device_.put(x),
                                  .ldx = kInputs,
                                  .token = token.data(),
                                  .weight = ones.data(),
                                  .groups = &group,
                                  .w = &gate_up,
                                  .group_count = 1,
                                  .h = h,
                                  .ldh = kStride,
                                  .for_products = for_products});
        device_.backend->row_parallel({.h = h,
                                       .ldh = kStride,
                                       .token = token.data(),
                                       .groups = &group,
                                       .w = &down,
                                       .group_count = 1,
                                       .tokens = tokens,
                                       .y = y,
                                       .ldy = kOut});
        written = device_.get(h, 1)[0] != kUntouched;
        return device_.get(y, size(tokens) * kOut);
      };
      const std::string what =
          std::to_string(tokens) + " tokens, " + std::to_string(widths.size()) + " segments";
      bool written = false;
      bool written_alone = false;
      const auto wanted = run(0, written);
      EXPECT_EQ(run(1, written_alone), wanted) << what;
      EXPECT_TRUE(written) << what;
      EXPECT_FALSE(written_alone) << what;
    }
  }
}

// Whatever stands beside it, in every place of a tile and of a work item.
TEST_F(Bf16BackendTest, ARowDoesNotDependOnTheOthers) {
  constexpr int kRows = 300;
  constexpr int kInputs = 600;
  const Weight w = plain_weight(100, kInputs, DType::kBF16, 40);
  const PackedMatrix packed = load(device_, w);
  const auto row = random_floats(kInputs, 41);
  std::vector<float> x;
  x.reserve(size(kRows) * kInputs);
  for (int r = 0; r < kRows; ++r) {
    const auto other = random_floats(kInputs, 50 + static_cast<unsigned>(r));
    const auto& from = r % 3 == 0 ? row : other;
    x.insert(x.end(), from.begin(), from.end());
  }
  const auto y = linear(device_, packed, x, {kRows});
  for (int r = 3; r < kRows; r += 3) {
    ASSERT_TRUE(std::equal(y.begin(), y.begin() + 100, y.begin() + r * 100)) << r;
  }
}

}  // namespace
}  // namespace dsm::device
