// Products of the device that is there against the CPU's plain table, up to a bound. A row has the
// same bits alone and among others.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "worker/device/backend_fixture.h"
#include "worker/device/weights_fixture.h"

namespace dsm::device {
namespace {

using namespace kernels;

// y of a linear with what it may have, on rows `first` .. of x.
struct LinearCase {
  const Weight& w;
  const std::vector<float>& x;  // [rows, k + pad]
  int pad = 0;
  bool bias = false;
  bool accumulate = false;
};
std::vector<float> linear(const Side& side, const PackedMatrix& w, const LinearCase& c, int first,
                          int rows) {
  const std::int64_t ldx = w.k + c.pad;
  const std::int64_t ldy = w.n + 1;
  auto* y = side.put(random_floats(size(rows * ldy), 5));
  const auto bias = random_floats(size(w.n), 6);
  side.backend->linear({.x = side.put(c.x) + first * ldx,
                        .ldx = ldx,
                        .w = &w,
                        .bias = c.bias ? side.put(bias) : nullptr,
                        .y = y,
                        .ldy = ldy,
                        .rows = rows,
                        .accumulate = c.accumulate});
  return side.get(y, size(rows * ldy));
}

// Of a product with weights of about 0.1: 16 bits of an activation take part, of each and, where
// weights are integers, on the CPU of the largest of 128.
double product_bound(int k, DType dtype = DType::kF32) {
  return (is_integer(dtype) ? 4e-5 : 2e-5) * std::sqrt(k);
}

TEST_F(BackendTest, LinearIsNearForEveryShapeAndType) {
  unsigned seed = 10;
  for (const DType dtype : kTypes) {
    for (const int n : {1, 40, 64, 100, 300}) {
      for (const int k : {1, 31, 64, 300, 1024, 1100, 3000}) {
        if (kEmulated && n * k > 100 * 1100) continue;
        const Weight w = weight(n, k, dtype, ++seed);
        const PackedMatrix on_cpu = load(cpu_, w);
        const PackedMatrix on_device = load(device_, w);
        for (const int rows : {1, 15, 17, 70}) {
          const int pad = rows % 2 == 0 ? 0 : 3;
          const auto x = random_floats(size(rows) * size(k + pad), ++seed);
          const LinearCase c{w, x, pad, rows == 15, rows == 17};
          expect_near(linear(device_, on_device, c, 0, rows), linear(cpu_, on_cpu, c, 0, rows),
                      product_bound(k, dtype),
                      "n " + std::to_string(n) + " k " + std::to_string(k) + " rows " +
                          std::to_string(rows) + " type " +
                          std::to_string(static_cast<int>(dtype)));
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

// Whichever way a checkpoint has them. Panels are packed a few at a time, so outputs are cut.
TEST_F(BackendTest, LinearIsNearForIntegersThatACheckpointHas) {
  for (const DType dtype : {DType::kInt8, DType::kInt4}) {
    for (const Rows order : {Rows::kOutputs, Rows::kInputs}) {
      const Weight w = stored_weight(300, 300, dtype, order, 490);
      const PackedMatrix on_cpu = load(cpu_, w);
      const PackedMatrix on_device = load(device_, w);
      ASSERT_EQ(on_device.dtype, dtype);
      const auto x = random_floats(size(17) * 300, 491);
      const LinearCase c{w, x};
      expect_near(linear(device_, on_device, c, 0, 17), linear(cpu_, on_cpu, c, 0, 17),
                  product_bound(300, dtype), order == Rows::kOutputs ? "by output" : "by input");
    }
  }
}

TEST_F(BackendTest, ARowOfALinearHasTheSameBitsAloneAndAmongOthers) {
  unsigned seed = 500;
  for (const DType dtype : kTypes) {
    constexpr int kColumns = kEmulated ? 100 : 512;
    const Weight w = weight(kColumns, 3000, dtype, ++seed);
    const PackedMatrix packed = load(device_, w);
    const auto x = random_floats(size(200) * 3000, ++seed);
    const LinearCase c{w, x};
    const auto all = linear(device_, packed, c, 0, 200);
    for (const auto& [first, rows] : {std::pair{0, 1}, {77, 1}, {30, 16}, {150, 33}, {199, 1}}) {
      const auto some = linear(device_, packed, c, first, rows);
      for (int r = 0; r < rows; ++r) {
        constexpr int kLd = kColumns + 1;
        EXPECT_TRUE(std::equal(some.begin() + r * kLd, some.begin() + r * kLd + kColumns,
                               all.begin() + (first + r) * kLd))
            << "row " << first + r << " of " << rows;
      }
    }
  }
}

TEST_F(BackendTest, ABatchOfHeadsIsComputedInItsStrides) {
  constexpr int kHeads = 3;
  constexpr int kRows = 20;
  std::vector<Weight> w;
  for (unsigned h = 0; h < kHeads; ++h) w.push_back(weight(48, 32, DType::kBF16, 600 + h));
  const auto x = random_floats(size(kRows) * kHeads * 64, 7);
  const auto run = [&](const Side& side) {
    std::vector<PackedMatrix> packed;
    for (const Weight& head : w) packed.push_back(load(side, head));
    auto* y = allocate<float>(*side.backend, size(kRows) * kHeads * 50);
    side.backend->linear({.x = side.put(x),
                          .ldx = kHeads * 64,
                          .x_step = 64,
                          .w = packed.data(),
                          .y = y,
                          .ldy = kHeads * 50,
                          .y_step = 50,
                          .rows = kRows,
                          .batch = kHeads});
    return side.get(y, size(kRows) * kHeads * 50);
  };
  expect_near(run(device_), run(cpu_), product_bound(32), "heads");
}

// Rows of x rounded to FP8, times factors, and multiplied by w. Where a backend takes FP8, the same
// rows in FP32 are not numbers: nobody may have read them.
std::vector<float> fp8_linear(const Side& side, const PackedMatrix& w, const std::vector<float>& x,
                              const std::vector<float>& factor, bool power_of_two) {
  const auto rows = static_cast<int>(factor.size());
  auto* rounded = side.put(x);
  const std::int64_t ld = round_up(w.k + 1, kScaleBlock);
  Fp8Rows fp8;
  if (side.backend->takes_fp8()) {
    fp8 = {allocate<std::uint8_t>(*side.backend, size(rows * ld)),
           allocate<float>(*side.backend, size(rows * ld / kScaleBlock)), ld};
  }
  side.backend->quantise({.x = rounded,
                          .ldx = w.k,
                          .factor = factor.data(),
                          .y = rounded,
                          .ldy = w.k,
                          .rows = rows,
                          .width = w.k,
                          .power_of_two = power_of_two,
                          .y_fp8 = fp8});
  if (side.backend->takes_fp8()) {
    const std::vector<float> nothing(x.size(), std::numeric_limits<float>::quiet_NaN());
    side.backend->wait();
    side.backend->write(rounded, nothing.data(), nothing.size() * sizeof(float));
  }
  auto* y = allocate<float>(*side.backend, size(rows) * size(w.n));
  side.backend->linear(
      {.x = rounded, .ldx = w.k, .w = &w, .y = y, .ldy = w.n, .rows = rows, .x_fp8 = fp8});
  return side.get(y, size(rows) * size(w.n));
}

// What tensor cores keep of a sum of 128 products of FP8, 13 bits of the largest; the scales are
// applied in FP32 on both sides.
double fp8_bound(int k) {
  return 2e-4 * std::sqrt(k);
}

TEST_F(BackendTest, ProductsOfFp8ByFp8AreNear) {
  EXPECT_TRUE(!kEmulated || device_.backend->takes_fp8());
  unsigned seed = 900;
  for (const auto& [n, k] : {std::pair{64, 128}, {100, 300}, {40, 31}, {192, 1280}}) {
    const Weight w = fp8_weight(n, k, 0, ++seed);
    const PackedMatrix on_cpu = load(cpu_, w);
    const PackedMatrix on_device = load(device_, w);
    ASSERT_EQ(on_device.dtype, DType::kF8E4M3);
    for (const int rows : {1, 17, 70}) {
      if (kEmulated && rows * n * k > 17 * 192 * 1280) continue;
      const auto x = random_floats(size(rows) * size(k), ++seed);
      const auto factor = random_floats(size(rows), ++seed);
      for (const bool power_of_two : {false, true}) {
        expect_near(
            fp8_linear(device_, on_device, x, factor, power_of_two),
            fp8_linear(cpu_, on_cpu, x, factor, power_of_two), fp8_bound(k),
            "n " + std::to_string(n) + " k " + std::to_string(k) + " rows " + std::to_string(rows));
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_F(BackendTest, ARowOfAnFp8ProductHasTheSameBitsAloneAndAmongOthers) {
  constexpr int kInputs = 1300;
  constexpr int kRows = kEmulated ? 20 : 90;
  const Weight w = fp8_weight(128, kInputs, 0, 950);
  const PackedMatrix packed = load(device_, w);
  const auto x = random_floats(size(kRows) * kInputs, 951);
  const auto all = fp8_linear(device_, packed, x, std::vector<float>(kRows, 1.0F), false);
  for (const std::ptrdiff_t row : {0, kRows / 2, kRows - 1}) {
    const auto from = x.begin() + row * kInputs;
    const auto alone = fp8_linear(device_, packed, {from, from + kInputs}, {1.0F}, false);
    EXPECT_TRUE(std::equal(alone.begin(), alone.end(), all.begin() + row * 128)) << row;
  }
}

}  // namespace
}  // namespace dsm::device
