// Products of many rows in the deterministic mode by the kernel for them (product_exact.h), which
// has to give the bits of the kernels for few, on the device that is there. One without it takes
// the others twice.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "kernels/cuda/product_exact.h"
#include "worker/device/backend_fixture.h"
#include "worker/device/many_rows_fixture.h"
#include "worker/device/routing_fixture.h"
#include "worker/device/same_bits.h"
#include "worker/device/weights_fixture.h"

namespace dsm::device {
namespace {

using namespace kernels;

constexpr DType kTensorTypes[] = {DType::kBF16, DType::kF8E4M3, DType::kInt8, DType::kInt4};

Side exact_side(bool wide) {
  return {make_backend({.device = *find_device("auto"),
                        .exact = true,
                        .kernels = {.wide_exact_from = wide ? 1 : 0}})};
}

class ExactBackendTest : public testing::Test {
 protected:
  // The emulated tensor cores add one by one, so bits have to be equal there. What a GPU's do
  // different_bits() tells, and then the same holds for every product.
  ExactBackendTest() : same_(kEmulated || different_bits(*few_.backend, *many_.backend).empty()) {}

  // Both sides of what `run` gives, which is called with either.
  template <class Run>
  void expect_same(const Run& run, const std::string& what) {
    if (!same_) GTEST_SKIP() << "this GPU's tensor cores add in two ways";
    const std::vector<float> wanted = run(few_);
    const std::vector<float> got = run(many_);
    ASSERT_EQ(got.size(), wanted.size());
    for (std::size_t i = 0; i < got.size(); ++i) {
      if (std::isnan(got[i]) && std::isnan(wanted[i])) continue;
      ASSERT_EQ(std::bit_cast<std::uint32_t>(got[i]), std::bit_cast<std::uint32_t>(wanted[i]))
          << what << " at " << i << ": " << got[i] << ", not " << wanted[i];
    }
  }

  const Side few_ = exact_side(false);
  const Side many_ = exact_side(true);
  const bool same_;
};

// Inputs from `first` on of a wider tensor.
Weight weight_of(int n, int k, int first, DType dtype, unsigned seed) {
  if (dtype == DType::kF8E4M3) return fp8_weight(n, k, first, seed);
  if (is_integer(dtype)) return integer_weight(n, k, first, dtype, seed);
  return plain_weight(n, k, dtype, seed);
}

std::string name_of(const Shape& shape, DType dtype) {
  return "type " + std::to_string(static_cast<int>(dtype)) + " n " + std::to_string(shape.n) +
         " k " + std::to_string(shape.k) + " rows " + std::to_string(shape.rows);
}

// Panels that a pair of blocks or a block has not, inputs that end within a step, a stage, a split
// and a span, as few stages as one and more than the ring has, several spans of one pair and of
// several, rows of half a tile and of several tiles, and more pieces than pairs.
TEST_F(ExactBackendTest, LinearHasTheSameBitsForEveryTypeAndShape) {
  unsigned seed = 40;
  for (const DType dtype : kTensorTypes) {
    for (const Shape& shape :
         {Shape{1, 1, 17}, Shape{100, 131, 65}, Shape{300, 90, 129}, Shape{520, 192, 33},
          Shape{70, 1100, 64}, Shape{130, 2300, 20}, Shape{64, 640, 300}, Shape{700, 1090, 66}}) {
      ++seed;
      const Weight w = weight_of(shape.n, shape.k, 0, dtype, seed);
      const bool adds = seed % 2 == 0;
      expect_same([&](const Side& side) { return linear(side, w, shape, adds, seed); },
                  name_of(shape, dtype));
      if (HasFatalFailure() || IsSkipped()) return;
    }
  }
}

// Blocks of scales that begin in the middle: no pairs of stages, so the kernels for few take them.
TEST_F(ExactBackendTest, ScalesThatBeginAnywhereAreMultipliedToo) {
  for (const int first : {64, 77}) {
    const Shape shape{100, 300, 40};
    const Weight w = weight_of(shape.n, shape.k, first, DType::kInt8, 70);
    expect_same([&](const Side& side) { return linear(side, w, shape, false, 71); },
                name_of(shape, DType::kInt8));
  }
}

// A row alone, among few and among many.
TEST_F(ExactBackendTest, ARowHasTheSameBitsWhateverRowsComeWithIt) {
  const Weight w = weight_of(200, 1300, 0, DType::kBF16, 75);
  if (!same_) GTEST_SKIP() << "this GPU's tensor cores add in two ways";
  const std::vector<float> all = linear(many_, w, {200, 1300, 150}, false, 76);
  for (const int rows : {1, 5, 17, 65}) {
    std::vector<float> some = linear(many_, w, {200, 1300, rows}, false, 76);
    for (int row = 0; row < rows; ++row) {
      for (int column = 0; column < 200; ++column) {
        const std::size_t at = size(row) * 201 + size(column);
        ASSERT_EQ(some[at], all[at]) << "row " << row << " of " << rows;
      }
    }
  }
}

// Groups of all tokens, of more than a tile, of half of one, of too few rows for the kernel and of
// none; gates of 32 columns beside what they gate.
TEST_F(ExactBackendTest, GroupsHaveTheSameBits) {
  constexpr int kInputs = 160;
  std::vector<Group> groups;
  std::vector<std::int32_t> token;
  for (const int count : {150, 70, 5, 0, 40}) {
    const auto begin = static_cast<int>(token.size());
    for (int t = 0; t < count; ++t) token.push_back(t * (150 / count));
    groups.push_back({begin, static_cast<int>(token.size())});
  }
  const auto x = random_floats(size(150) * kInputs, 91);
  const auto factors = random_floats(token.size(), 92, 0.3F);
  const auto start = random_floats(size(150) * 320, 93);
  for (const DType dtype : kTensorTypes) {
    std::vector<Weight> weights;
    weights.reserve(groups.size());
    for (unsigned g = 0; g < groups.size(); ++g) {
      weights.push_back(weight_of(g == 0 ? 320 : 128, kInputs, 0, dtype, 90 + g));
    }
    for (const bool begun : {false, true}) {
      expect_same(
          [&](const Side& side) {
            std::vector<PackedMatrix> w;
            w.reserve(weights.size());
            for (const Weight& weight : weights) w.push_back(load(side, weight));
            auto* h = allocate<float>(*side.backend, token.size() * 160);
            side.backend->gate_up({.x = side.put(x),
                                   .ldx = kInputs,
                                   .token = token.data(),
                                   .weight = factors.data(),
                                   .groups = groups.data(),
                                   .w = w.data(),
                                   .group_count = static_cast<int>(groups.size()),
                                   .h = h,
                                   .ldh = 160,
                                   .start = begun ? side.put(start) : nullptr,
                                   .lds = 320});
            return side.get(h, token.size() * 160);
          },
          begun ? "begun" : "h");
      if (HasFatalFailure() || IsSkipped()) return;
    }
  }
}

// Also where several pairs of blocks have a row's spans.
TEST_F(ExactBackendTest, ResidualsAreAddedToTheSameBits) {
  for (const Shape& shape : {Shape{200, 1500, 66}, Shape{520, 400, 130}}) {
    const Weight w = plain_weight(shape.n, shape.k, DType::kBF16, 95);
    const auto h = random_floats(size(shape.rows) * size(shape.k), 96);
    expect_same(
        [&](const Side& side) {
          return row_parallel(side, w, {side.put(h), shape.k}, shape.rows, 97);
        },
        "y");
  }
}

TEST_F(ExactBackendTest, ABatchOfHeadsHasTheSameBits) {
  expect_same([](const Side& side) { return heads(side); }, "heads");
}

// Of 8 experts, of which one is nobody's and one in BF16 stands among others: groups that end
// within a tile, of few rows, which are other kernels', and of a tile and more.
TEST_F(ExactBackendTest, RoutedExpertsHaveTheSameBits) {
  for (const DType dtype : kTensorTypes) {
    const RoutedExperts experts(8, dtype);
    for (const int tokens : {5, 60}) {
      const Routing routing(tokens, 8, 3);
      const auto x = random_floats(size(tokens) * RoutedExperts::kHidden, 35);
      expect_same([&](const Side& side) { return experts.run(side, routing, x); },
                  std::to_string(tokens) + " tokens");
      if (HasFatalFailure() || IsSkipped()) return;
    }
  }
}

// All tokens choose one expert, and each a second. Inputs end within a second span.
TEST_F(ExactBackendTest, GroupsOfTheDeviceOfVeryDifferentSizesHaveTheSameBits) {
  expect_same([](const Side& side) { return uneven_groups(side, 150); }, "h");
}

// Rows that only the next products read are not held for these.
TEST_F(ExactBackendTest, RowsStandInMemoryForTheNextProducts) {
  constexpr int kRows = 512;
  const Weight w = plain_weight(64, 64, DType::kBF16, 910);
  const auto x = random_floats(size(kRows) * 64, 911);
  expect_same(
      [&](const Side& side) {
        const PackedMatrix packed = load(side, w);
        const float* from = side.put(x);
        auto* normed = allocate<float>(*side.backend, x.size());
        auto* y = allocate<float>(*side.backend, x.size());
        side.backend->rms_norm({from, 64, nullptr, from, normed, 64, kRows, 64, 1e-6F, 1});
        side.backend->linear(
            {.x = normed, .ldx = 64, .w = &packed, .y = y, .ldy = 64, .rows = kRows});
        return side.get(y, x.size());
      },
      "y");
}

}  // namespace
}  // namespace dsm::device
