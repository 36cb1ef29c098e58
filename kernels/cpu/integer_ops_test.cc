// Products with weights in integers, by every table: to the bit the definition at the top of
// integer_ops.h, written here element by element, and near the products with the weights' values.
#include "kernels/cpu/integer_ops.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/integers_fixture.h"
#include "kernels/cpu/ops_fixture.h"

namespace dsm::kernels {
namespace {

constexpr DType kIntegers[] = {DType::kInt8, DType::kInt4};

std::size_t size(int count) {
  return static_cast<std::size_t>(count);
}

// What all integers of a piece are times.
float power_of(const float* x, int count) {
  float largest = 0;
  for (int i = 0; i < count; ++i) {
    if (!std::isfinite(x[i])) return std::numeric_limits<float>::quiet_NaN();
    largest = std::max(largest, std::abs(x[i]));
  }
  if (largest == 0) return 0x1p-126F;
  int exponent = 0;
  std::frexp(largest, &exponent);
  exponent -= 15;  // of the largest magnitude, which is at least 2^(exponent - 1), less 14
  if (std::ldexp(static_cast<double>(largest), -exponent) >= 32576) ++exponent;
  return std::ldexp(1.0F, std::max(exponent, -126));
}

// Rows [rows, k] by the matrix, begun at `begin`.
std::vector<float> by_definition(const PackedMatrix& w, const std::vector<float>& x, int rows,
                                 float begin) {
  std::vector<float> y(size(rows) * size(w.n), begin);
  for (int r = 0; r < rows; ++r) {
    for (int first = -w.scale_phase; first < w.k; first += 128) {
      const int from = std::max(first, 0);
      const int to = std::min(first + 128, w.k);
      const float* const row = x.data() + size(r) * size(w.k);
      const float power = power_of(row + from, to - from);
      for (int j = 0; j < w.n; ++j) {
        std::int64_t sum = 0;
        for (int i = from; i < to && !std::isnan(power); ++i) {
          const double integer = std::nearbyint(static_cast<double>(row[i]) / power);
          EXPECT_LE(std::abs(integer), 32639);
          sum += static_cast<std::int64_t>(integer) * packed_element(w, j, i).integer;
        }
        float& to_add = y[size(r) * size(w.n) + size(j)];
        to_add =
            std::fma(static_cast<float>(sum), packed_element(w, j, from).scale * power, to_add);
      }
    }
  }
  return y;
}

void expect_same(const std::vector<float>& got, const std::vector<float>& wanted,
                 const std::string& what) {
  ASSERT_EQ(got.size(), wanted.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (std::isnan(wanted[i]) && std::isnan(got[i])) continue;
    ASSERT_EQ(got[i], wanted[i]) << what << " at " << i;
  }
}

// Pieces of a row of very different size, some of them zeros, and values that lie anywhere between
// two powers of two.
std::vector<float> rows_of(int rows, int k, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(size(rows) * size(k));
  const float factors[] = {1, 1e-30F, 0, 1e20F, 1.9F, 0x1p-140F};
  for (std::size_t i = 0; i < x.size(); ++i) {
    x[i] = normal(random) * (seed % 2 == 0 ? 1.0F : factors[i / 100 % std::size(factors)]);
  }
  return x;
}

constexpr std::array<int, 4> kSlices[] = {{0, 170, 0, 500},  {100, 70, 77, 300}, {3, 5, 127, 1},
                                          {120, 16, 126, 4}, {0, 64, 200, 184},  {9, 100, 256, 31},
                                          {5, 81, 64, 128}};

class IntegersOnEveryTable : public OnEveryTable {};

std::vector<float> product(const Ops& ops, const PackedMatrix& w, const std::vector<float>& x,
                           int rows, bool accumulate) {
  std::vector<float> y(size(rows) * size(w.n), 0.25F);
  const LinearParams p{.x = x.data(),
                       .ldx = w.k,
                       .w = &w,
                       .y = y.data(),
                       .ldy = w.n,
                       .rows = rows,
                       .accumulate = accumulate};
  for (int panel = 0; panel < panels_of(w); ++panel) ops.linear(p, 0, 0, rows, panel);
  return y;
}

TEST_P(IntegersOnEveryTable, ProductsHaveTheBitsOfTheDefinition) {
  const Tensor tensor(170, 500, 9);
  unsigned seed = 0;
  for (const DType dtype : kIntegers) {
    for (const auto& [row, n, column, k] : kSlices) {
      const Packed packed({tensor.slice(row, n, column, k, dtype)});
      for (const int rows : {1, 2, 3, 7, 70}) {
        const auto x = rows_of(rows, k, ++seed);
        for (const bool accumulate : {false, true}) {
          expect_same(product(ops(), packed.matrix, x, rows, accumulate),
                      by_definition(packed.matrix, x, rows, accumulate ? 0.25F : 0.0F),
                      std::to_string(n) + " x " + std::to_string(k) + ", " + std::to_string(rows) +
                          " rows");
        }
      }
    }
  }
}

// Half of an integer of each piece, and FP32's roundings.
TEST_P(IntegersOnEveryTable, ProductsAreNearThoseOfTheWeightsValues) {
  const Tensor tensor(170, 500, 10);
  for (const DType dtype : kIntegers) {
    const Packed packed({tensor.slice(0, 170, 0, 500, dtype)});
    const auto x = rows_of(7, 500, 2);
    const auto got = product(ops(), packed.matrix, x, 7, false);
    for (int r = 0; r < 7; ++r) {
      for (int j = 0; j < 170; ++j) {
        double wanted = 0;
        double bound = 0;
        for (int i = 0; i < 500; ++i) {
          const int first = i / 128 * 128;
          const float* const piece = x.data() + r * 500 + first;
          const double weight = packed_at(packed.matrix, j, i);
          wanted += weight * x[size(r * 500 + i)];
          bound += std::abs(weight) * 0.51 * power_of(piece, std::min(128, 500 - first));
        }
        ASSERT_NEAR(got[size(r * 170 + j)], wanted, bound + 1e-6);
      }
    }
  }
}

TEST_P(IntegersOnEveryTable, ARowThatIsNotFiniteIsNotANumberAndTheOthersAre) {
  const Tensor tensor(70, 300, 11);
  for (const DType dtype : kIntegers) {
    const Packed packed({tensor.slice(0, 70, 0, 300, dtype)});
    auto x = rows_of(20, 300, 4);
    x[3 * 300 + 299] = std::numeric_limits<float>::infinity();
    x[17 * 300 + 5] = std::numeric_limits<float>::quiet_NaN();
    const auto got = product(ops(), packed.matrix, x, 20, false);
    for (int r = 0; r < 20; ++r) {
      for (int j = 0; j < 70; ++j) {
        ASSERT_EQ(std::isnan(got[size(r * 70 + j)]), r == 3 || r == 17) << r << ", " << j;
      }
    }
    expect_same(got, by_definition(packed.matrix, x, 20, 0), "not finite");
  }
}

INSTANTIATE_TEST_SUITE_P(Tables, IntegersOnEveryTable, all_tables(), table_name);

class ByIntegers : public testing::TestWithParam<const IntegerOps*> {
 protected:
  const IntegerOps& ops() const { return *GetParam(); }
};

// Rows as a table makes them.
struct Made {
  Made(const IntegerOps& ops, RowsToIntegers from, int pieces, int first) {
    rows.together = rows_together(from.rows);
    rows.pieces = pieces;
    rows.first = first;
    const auto all = round_up(from.rows, rows.together);
    numbers.resize(size(static_cast<int>(all) * pieces * kPieceBytes) + 64, std::byte{0x55});
    void* begin = numbers.data();
    std::size_t space = numbers.size();
    rows.numbers = static_cast<std::byte*>(std::align(64, space - 64, begin, space));
    factors.resize(size(from.rows * pieces));
    rows.factors = factors.data();
    from.to = rows;
    // In parts, as a backend divides them.
    for (int row = 0; row < from.rows; row += rows.together) {
      ops.make(from, row, std::min(from.rows, row + rows.together));
    }
  }
  std::vector<std::byte> numbers;
  std::vector<PieceFactor> factors;
  IntegerRows rows;
};

// Rows of the middle, too, which begin anywhere among those that stand together.
TEST_P(ByIntegers, LinearHasTheBitsOfTheDefinition) {
  const Tensor tensor(170, 500, 12);
  unsigned seed = 0;
  for (const DType dtype : kIntegers) {
    for (const auto& [row, n, column, k] : kSlices) {
      const Packed packed({tensor.slice(row, n, column, k, dtype)});
      const PackedMatrix& w = packed.matrix;
      for (const int rows : {1, 2, 3, 4, 7, 9, 16, 70}) {
        const auto x = rows_of(rows, k, ++seed);
        const Made made(ops(), {.x = x.data(), .ldx = k, .rows = rows, .matrix = &w}, pieces_of(w),
                        0);
        const int begin = rows == 70 ? 5 : 0;
        std::vector<float> y(size(rows) * size(n), 0.25F);
        const LinearParams p{.x = x.data(),
                             .ldx = k,
                             .w = &w,
                             .y = y.data(),
                             .ldy = n,
                             .rows = rows,
                             .accumulate = true};
        for (int panel = 0; panel < panels_of(w); ++panel) {
          if (begin > 0) ops().linear(p, 0, made.rows, 0, begin, panel);
          ops().linear(p, 0, made.rows, begin, rows, panel);
        }
        expect_same(
            y, by_definition(w, x, rows, 0.25F),
            std::to_string(n) + " x " + std::to_string(k) + ", " + std::to_string(rows) + " rows");
      }
    }
  }
}

// Two groups of tokens, of which the second has some, and segments whose blocks begin anywhere.
TEST_P(ByIntegers, GateUpAndRowParallelHaveTheBitsOfTheirTable) {
  constexpr int kTokens = 40;
  constexpr int kHidden = 200;
  constexpr int kWidth = 320;
  const Tensor into(2 * kWidth, kHidden, 13);
  const Tensor out(100, kWidth, 14);
  std::vector<std::int32_t> token;
  token.reserve(2 * kTokens);
  for (int t = 0; t < kTokens; ++t) token.push_back(t);
  for (int t = 3; t < kTokens; t += 2) token.push_back(t);
  const Group groups[] = {{0, kTokens}, {kTokens, static_cast<int>(token.size())}};
  const auto slots = static_cast<int>(token.size());
  const std::vector<float> weights(token.size(), 0.5F);
  const auto x = rows_of(kTokens, kHidden, 16);
  for (const DType dtype : kIntegers) {
    const Packed gate({into.slice(0, 2 * kWidth, 0, kHidden, dtype)});
    const PackedMatrix both[] = {gate.matrix, gate.matrix};
    std::vector<float> h(token.size() * kWidth);
    GateUpParams up{.x = x.data(),
                    .ldx = kHidden,
                    .token = token.data(),
                    .weight = weights.data(),
                    .groups = groups,
                    .w = both,
                    .group_count = 2,
                    .h = h.data(),
                    .ldh = kWidth};
    for (int g = 0; g < 2; ++g) {
      for (int panel = 0; panel < panels_of(both[g]); ++panel) {
        available_ops()[0]->gate_up(up, g, groups[g].begin, groups[g].end, panel);
      }
    }
    std::vector<float> got(h.size());
    up.h = got.data();
    for (int g = 0; g < 2; ++g) {
      const Made made(ops(),
                      {.x = x.data(),
                       .ldx = kHidden,
                       .index = token.data() + groups[g].begin,
                       .rows = groups[g].end - groups[g].begin,
                       .matrix = &both[g]},
                      pieces_of(both[g]), groups[g].begin);
      for (int panel = 0; panel < panels_of(both[g]); ++panel) {
        ops().gate_up(up, g, made.rows, groups[g].begin, groups[g].end, panel);
      }
    }
    expect_same(got, h, "gate_up");

    const std::vector<Packed> parts = [&] {
      std::vector<Packed> all;
      all.reserve(kSegments);
      for (int s = 0; s < kSegments; ++s)
        all.emplace_back(std::vector{out.slice(0, 100, s * 40, 40, dtype)});
      return all;
    }();
    SegmentedMatrix whole;
    whole.count = kSegments;
    for (int s = 0; s < kSegments; ++s) {
      whole.part[s] = parts[size(s)].matrix;
      whole.offset[s] = s * 40;
    }
    const SegmentedMatrix w[] = {whole, whole};
    std::vector<float> y(size(kTokens) * 112);
    RowParallelParams down{.h = h.data(),
                           .ldh = kWidth,
                           .token = token.data(),
                           .groups = groups,
                           .w = w,
                           .group_count = 2,
                           .tokens = kTokens,
                           .y = y.data(),
                           .ldy = 112};
    for (int panel = 0; panel < 2; ++panel) {
      available_ops()[0]->row_parallel(down, 0, kTokens, panel);
    }
    std::vector<float> sums(y.size());
    down.y = sums.data();
    std::vector<Made> made;
    made.reserve(2);
    std::vector<IntegerRows> rows;
    for (const Group& group : groups) {
      made.emplace_back(ops(),
                        RowsToIntegers{.x = h.data() + group.begin * kWidth,
                                       .ldx = kWidth,
                                       .rows = group.end - group.begin,
                                       .segments = &whole},
                        pieces_of(whole), group.begin);
      rows.push_back(made.back().rows);
    }
    for (int panel = 0; panel < 2; ++panel) {
      ops().row_parallel(down, rows.data(), 0, 7, panel);
      ops().row_parallel(down, rows.data(), 7, kTokens, panel);
    }
    expect_same(sums, y, "row_parallel");
    EXPECT_EQ(slots, kTokens + 19);
  }
}

INSTANTIATE_TEST_SUITE_P(Tables, ByIntegers,
                         testing::ValuesIn(available_integer_ops().begin(),
                                           available_integer_ops().end()),
                         [](const auto& table) { return std::string(table.param->name); });

TEST(IntegerTables, AreThoseOfTheirNamesAndTheBestTablesTheBest) {
  EXPECT_STREQ(integer_ops(*available_ops()[0]).name, "generic");
  EXPECT_EQ(&integer_ops(best_ops()), available_integer_ops().back());
}

}  // namespace
}  // namespace dsm::kernels
