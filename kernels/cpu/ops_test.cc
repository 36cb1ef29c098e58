// Products, norms and their sums against a plain computation in double precision, and every table
// against the generic one, bit by bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/ops_fixture.h"
#include "kernels/cpu/pack.h"
#include "kernels/random_floats.h"

namespace dsm::kernels {
namespace {

// A weight [n, k] in BF16 or FP32 with its packed form and its exact values.
struct TestWeight {
  TestWeight(int n, int k, DType dtype, unsigned seed)
      : values(
            random_floats(static_cast<std::size_t>(n) * static_cast<std::size_t>(k), seed, 0.1F)) {
    std::vector<std::byte> bytes(values.size() * bytes_of(dtype));
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (dtype == DType::kF32) {
        std::memcpy(bytes.data() + 4 * i, &values[i], 4);
        continue;
      }
      std::uint32_t bits = 0;
      std::memcpy(&bits, &values[i], 4);
      const auto half = static_cast<std::uint16_t>(bits >> 16);
      std::memcpy(bytes.data() + 2 * i, &half, 2);
      bits &= 0xffff0000U;
      std::memcpy(&values[i], &bits, 4);
    }
    const WeightPiece piece{bytes.data(), dtype, k, 1, n, k};
    storage.resize(packed_bytes(packed_dtype({&piece, 1}), n, k));
    packed = pack({&piece, 1}, storage.data());
  }
  double at(int n, int k) const {
    return values[static_cast<std::size_t>(n) * static_cast<std::size_t>(packed.k) +
                  static_cast<std::size_t>(k)];
  }

  std::vector<float> values;
  std::vector<std::byte> storage;
  PackedMatrix packed;
};

class OpsTest : public OnEveryTable {};

TEST_P(OpsTest, LinearIsTheProductForEveryShapeAndDtype) {
  unsigned seed = 1;
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    for (const int n : {1, 8, 16, 40, 64, 100, 160}) {
      for (const int k : {1, 2, 31, 64}) {
        for (const int rows : {1, 2, 3, 7, 70}) {
          const TestWeight w(n, k, dtype, ++seed);
          const auto x = random_floats(static_cast<std::size_t>(rows * k), ++seed);
          std::vector<float> y(static_cast<std::size_t>(rows * n) + 1, 77.0F);
          auto generic = y;
          LinearParams p{
              .x = x.data(), .ldx = k, .w = &w.packed, .y = y.data(), .ldy = n, .rows = rows};
          for (int panel = 0; panel < panels_of(w.packed); ++panel)
            ops().linear(p, 0, 0, rows, panel);
          p.y = generic.data();
          for (int panel = 0; panel < panels_of(w.packed); ++panel)
            available_ops()[0]->linear(p, 0, 0, rows, panel);
          ASSERT_EQ(y, generic);
          EXPECT_EQ(y.back(), 77.0F) << "written past the end";
          for (int r = 0; r < rows; ++r) {
            for (int j = 0; j < n; ++j) {
              double sum = 0;
              for (int i = 0; i < k; ++i)
                sum += x[static_cast<std::size_t>(r * k + i)] * w.at(j, i);
              ASSERT_NEAR(y[static_cast<std::size_t>(r * n + j)], sum, 1e-5);
            }
          }
        }
      }
    }
  }
}

// A weight in FP8 blocks whose first block is cut at `column`, and the same dequantised.
TEST_P(OpsTest, Fp8WeightsGiveTheBitsOfTheSameWeightsInFp32) {
  std::mt19937 random(9);
  constexpr int kColumns = 500;
  constexpr int kRows = 170;
  std::vector<std::byte> bytes(std::size_t{kRows} * kColumns);
  for (auto& byte : bytes) {
    auto bits = static_cast<std::uint8_t>(random());
    if ((bits & 0x7fU) == 0x7fU) bits = 1;  // the smallest; 0x7f is not a number
    byte = std::byte{bits};
  }
  // From where the product is denormal to the largest that stays in FP8.
  std::vector<float> scales;
  for (int i = 0; i < 8; ++i) {
    scales.push_back(std::ldexp(1.0F + static_cast<float>(random() % 1000) / 1001.0F,
                                i == 3 ? -125 : static_cast<int>(random() % 40) - 34));
  }
  std::vector<float> plain;
  for (int i = 0; i < kRows * kColumns; ++i) {
    const int row = i / kColumns;
    const int column = i % kColumns;
    plain.push_back(from_e4m3(std::to_integer<std::uint8_t>(bytes[static_cast<std::size_t>(i)])) *
                    scales[static_cast<std::size_t>(row / 128 * 4 + column / 128)]);
  }
  const BlockScales blocks{reinterpret_cast<const std::byte*>(scales.data()), DType::kF32, 128, 128,
                           kColumns};
  const auto pack_piece = [](const WeightPiece& piece, std::vector<std::byte>& storage) {
    const PackedMatrix shape = packed_matrix({&piece, 1}, nullptr);
    storage.resize(packed_bytes(shape.dtype, shape.n, shape.k));
    return pack({&piece, 1}, storage.data());
  };
  for (const auto& [row, n, column, k] : {std::array{0, 170, 0, 500},
                                          {100, 70, 77, 300},
                                          {3, 5, 127, 1},
                                          {120, 16, 127, 2},
                                          {0, 64, 200, 184}}) {
    WeightPiece piece{bytes.data(), DType::kF8E4M3, kColumns, 1, n, k, row * kColumns + column,
                      blocks};
    std::vector<std::byte> fp8_storage;
    const PackedMatrix fp8 = pack_piece(piece, fp8_storage);
    ASSERT_EQ(fp8.dtype, DType::kF8E4M3);
    piece.data = reinterpret_cast<const std::byte*>(plain.data());
    piece.dtype = DType::kF32;
    std::vector<std::byte> f32_storage;
    const PackedMatrix f32 = pack_piece(piece, f32_storage);
    for (const int rows : {1, 2, 3, 7}) {
      const auto x = random_floats(static_cast<std::size_t>(rows * k), 10);
      std::vector<float> got(static_cast<std::size_t>(rows * n));
      auto wanted = got;
      LinearParams p{.x = x.data(), .ldx = k, .w = &fp8, .y = got.data(), .ldy = n, .rows = rows};
      for (int panel = 0; panel < panels_of(fp8); ++panel) ops().linear(p, 0, 0, rows, panel);
      p.w = &f32;
      p.y = wanted.data();
      for (int panel = 0; panel < panels_of(f32); ++panel) {
        available_ops()[0]->linear(p, 0, 0, rows, panel);
      }
      EXPECT_EQ(std::memcmp(got.data(), wanted.data(), got.size() * sizeof(float)), 0)
          << n << " x " << k << ", " << rows << " rows";
    }
  }
}

TEST_P(OpsTest, NormHeadsNormsQueriesAndKeysAndLeavesValues) {
  constexpr int kTokens = 3, kQueries = 4, kKeys = 2, kDim = 48,
                kLd = (kQueries + 2 * kKeys) * kDim;
  const auto x = random_floats(kTokens * kLd, 3);
  const auto query = random_floats(kDim, 4);
  const auto key = random_floats(kDim, 5);
  auto y = x;
  ops().norm_heads({y.data(), kLd, query.data(), key.data(), kTokens, kQueries, kKeys, kDim, 1e-6F},
                   1, kTokens);
  for (int t = 0; t < kTokens; ++t) {
    for (int h = 0; h < kQueries + 2 * kKeys; ++h) {
      const auto at = static_cast<std::size_t>(t * kLd + h * kDim);
      std::vector<float> wanted(x.begin() + static_cast<std::ptrdiff_t>(at),
                                x.begin() + static_cast<std::ptrdiff_t>(at + kDim));
      if (t > 0 && h < kQueries + kKeys) {
        ops().rms_norm({x.data() + at, 0, nullptr, h < kQueries ? query.data() : key.data(),
                        wanted.data(), 0, 1, kDim, 1e-6F},
                       0, 1);
      }
      EXPECT_EQ(std::memcmp(y.data() + at, wanted.data(), kDim * sizeof(float)), 0)
          << t << " " << h;
    }
  }
}

// Rows of a table in integers are the weights of the same matrix: what a product with one input of
// 1 gives.
TEST_P(OpsTest, EmbeddingOfIntegersIsWhatProductsMultiplyBy) {
  for (const DType dtype : {DType::kInt8, DType::kInt4}) {
    for (const auto& [vocab, width] : {std::array{70, 32}, {1, 1}, {64, 129}, {200, 300}}) {
      const auto values = random_floats(static_cast<std::size_t>(vocab * width), 11);
      const WeightPiece piece{.data = reinterpret_cast<const std::byte*>(values.data()),
                              .dtype = DType::kF32,
                              .n_stride = width,
                              .k_stride = 1,
                              .n = vocab,
                              .k = width,
                              .round_to = dtype};
      std::vector<std::byte> storage(packed_bytes(dtype, vocab, width));
      const PackedMatrix w = pack({&piece, 1}, storage.data());
      ASSERT_EQ(w.dtype, dtype);
      std::vector<float> weights(static_cast<std::size_t>(vocab * width));
      for (int i = 0; i < width; ++i) {
        std::vector<float> x(static_cast<std::size_t>(width));
        x[static_cast<std::size_t>(i)] = 1;
        std::vector<float> y(static_cast<std::size_t>(vocab));
        const LinearParams p{
            .x = x.data(), .ldx = width, .w = &w, .y = y.data(), .ldy = vocab, .rows = 1};
        for (int panel = 0; panel < panels_of(w); ++panel) ops().linear(p, 0, 0, 1, panel);
        for (int token = 0; token < vocab; ++token) {
          weights[static_cast<std::size_t>(token * width + i)] = y[static_cast<std::size_t>(token)];
        }
      }
      std::vector<std::int32_t> tokens;
      for (int token = -1; token < vocab; ++token) tokens.push_back(token);
      std::vector<float> y(static_cast<std::size_t>((vocab + 1) * width) + 1, 77.0F);
      ops().embedding({tokens.data(), w.data, dtype, y.data(), vocab + 1, width, w.scales}, 0,
                      vocab + 1);
      EXPECT_EQ(y.back(), 77.0F) << "written past the end";
      y.pop_back();
      weights.insert(weights.begin(), static_cast<std::size_t>(width), 0.0F);
      EXPECT_EQ(y, weights) << vocab << " x " << width;
    }
  }
}

TEST_P(OpsTest, RmsNormDividesByTheRootMeanSquare) {
  const auto x = random_floats(3 * 48, 3);
  const auto weight = random_floats(48, 4);
  const std::int32_t index[] = {2, 0};
  std::vector<float> y(2 * 48);
  const RmsNormParams p{x.data(), 48, index, weight.data(), y.data(), 48, 2, 48, 1e-6F};
  ops().rms_norm(p, 0, 2);
  for (int r = 0; r < 2; ++r) {
    const float* row = x.data() + index[r] * 48;
    double sum = 0;
    for (int i = 0; i < 48; ++i) sum += static_cast<double>(row[i]) * row[i];
    for (int i = 0; i < 48; ++i) {
      EXPECT_NEAR(y[static_cast<std::size_t>(r * 48 + i)],
                  row[i] / std::sqrt(sum / 48 + 1e-6) * weight[static_cast<std::size_t>(i)], 1e-5);
    }
  }
}

double silu(double x) {
  return x / (1 + std::exp(-x));
}

TEST_P(OpsTest, GateUpIsSiluOfGateTimesUpTimesTheWeight) {
  constexpr int kWidth = 40;
  constexpr int kIn = 32;
  const TestWeight gate(kWidth, kIn, DType::kF32, 5);
  const TestWeight up(kWidth, kIn, DType::kF32, 6);
  std::vector<WeightPiece> pieces;
  for (int at = 0; at < kWidth; at += 32) {
    const int n = std::min(32, kWidth - at);
    for (const auto* half : {&gate, &up}) {
      pieces.push_back({reinterpret_cast<const std::byte*>(half->values.data() + at * kIn),
                        DType::kF32, kIn, 1, n, kIn});
      if (n < 32) pieces.push_back({.n = 32 - n, .k = kIn});
    }
  }
  std::vector<std::byte> storage(packed_bytes(DType::kF32, 128, kIn));
  const PackedMatrix packed = pack(pieces, storage.data());
  ASSERT_EQ(packed.n, 128);

  const auto x = random_floats(4 * kIn, 7, 3.0F);
  const std::int32_t token[] = {3, 0, 1};
  const float weight[] = {1.0F, 0.5F, -2.0F};
  const Group groups[] = {{0, 0}, {0, 3}};
  const PackedMatrix w[] = {packed, packed};
  std::vector<float> h(3 * 64, 9.0F);
  const GateUpParams p{x.data(), kIn, token, weight, groups, w, 2, h.data(), 64};
  for (int panel = 0; panel < 2; ++panel) ops().gate_up(p, 1, 0, 3, panel);
  for (int s = 0; s < 3; ++s) {
    for (int j = 0; j < kWidth; ++j) {
      double g = 0;
      double u = 0;
      for (int i = 0; i < kIn; ++i) {
        g += x[static_cast<std::size_t>(token[s] * kIn + i)] * gate.at(j, i);
        u += x[static_cast<std::size_t>(token[s] * kIn + i)] * up.at(j, i);
      }
      EXPECT_NEAR(h[static_cast<std::size_t>(s * 64 + j)], silu(g) * u * weight[s], 1e-5);
    }
    EXPECT_EQ(h[static_cast<std::size_t>(s * 64 + kWidth)], 0.0F) << "padding must stay zero";
  }
}

// The sum of row_parallel over `ranks` ranks, each with its share of the segments.
std::vector<float> row_parallel(const Ops& ops, int ranks, const std::vector<TestWeight>& weights,
                                int width, const std::vector<float>& h,
                                const std::vector<std::int32_t>& token,
                                const std::vector<Group>& groups, int tokens, int n,
                                const std::vector<float>& residual) {
  const int unit = width / kSegments;
  std::vector<float> parts;
  for (int rank = 0; rank < ranks; ++rank) {
    std::vector<SegmentedMatrix> w(weights.size());
    std::vector<std::vector<std::byte>> storage;
    for (std::size_t g = 0; g < weights.size(); ++g) {
      w[g].count = kSegments / ranks;
      for (int s = 0; s < w[g].count; ++s) {
        const int begin = (rank * w[g].count + s) * unit;
        const WeightPiece piece{
            reinterpret_cast<const std::byte*>(weights[g].values.data() + begin),
            DType::kF32,
            width,
            1,
            n,
            unit};
        storage.emplace_back(packed_bytes(DType::kF32, n, unit));
        w[g].part[s] = pack({&piece, 1}, storage.back().data());
        w[g].offset[s] = begin;
      }
    }
    std::vector<float> y(static_cast<std::size_t>(tokens * n));
    const RowParallelParams p{.h = h.data(),
                              .ldh = width,
                              .token = token.data(),
                              .groups = groups.data(),
                              .w = w.data(),
                              .group_count = static_cast<int>(weights.size()),
                              .tokens = tokens,
                              .residual = ranks == 1 ? residual.data() : nullptr,
                              .y = y.data(),
                              .ldy = n};
    for (int begin = 0; begin < tokens; begin += kRowBlock) {
      for (int panel = 0; panel * kPanel < n; ++panel) {
        ops.row_parallel(p, begin, std::min(tokens, begin + kRowBlock), panel);
      }
    }
    parts.insert(parts.end(), y.begin(), y.end());
  }
  if (ranks == 1) return parts;
  std::vector<float> y = residual;
  ops.tree_sum({parts.data(), ranks, static_cast<std::int64_t>(y.size()), y.data(), y.data()}, 0,
               static_cast<std::int64_t>(y.size()));
  return y;
}

TEST_P(OpsTest, RowParallelSumsHaveTheSameBitsForEveryNumberOfRanks) {
  constexpr int kWidth = 48;
  constexpr int kOut = 80;
  constexpr int kTokens = 70;
  // Everybody takes part in the first group, every third token in the second, the last one in the
  // third.
  std::vector<std::int32_t> token;
  std::vector<Group> groups;
  for (const int step : {1, 3, kTokens - 1}) {
    const int begin = static_cast<int>(token.size());
    for (int t = step == kTokens - 1 ? kTokens - 1 : 0; t < kTokens; t += step) token.push_back(t);
    groups.push_back({begin, static_cast<int>(token.size())});
  }
  std::vector<TestWeight> weights;
  for (unsigned g = 0; g < 3; ++g) weights.emplace_back(kOut, kWidth, DType::kF32, 20 + g);
  const auto h = random_floats(token.size() * kWidth, 30);
  const auto residual = random_floats(kTokens * kOut, 31);
  const auto run = [&](const Ops& table, int ranks) {
    return row_parallel(table, ranks, weights, kWidth, h, token, groups, kTokens, kOut, residual);
  };
  const auto one = run(ops(), 1);
  EXPECT_EQ(one, run(*available_ops()[0], 1));
  for (const int ranks : {2, 4, 8}) EXPECT_EQ(run(ops(), ranks), one) << ranks << " ranks";

  std::vector<double> wanted(residual.begin(), residual.end());
  for (std::size_t g = 0; g < groups.size(); ++g) {
    for (int s = groups[g].begin; s < groups[g].end; ++s) {
      for (int j = 0; j < kOut; ++j) {
        for (int i = 0; i < kWidth; ++i) {
          wanted[static_cast<std::size_t>(token[static_cast<std::size_t>(s)] * kOut + j)] +=
              h[static_cast<std::size_t>(s * kWidth + i)] * weights[g].at(j, i);
        }
      }
    }
  }
  for (std::size_t i = 0; i < wanted.size(); ++i) ASSERT_NEAR(one[i], wanted[i], 1e-4);
}

TEST_P(OpsTest, LinearAddsItsBiasToTheFinishedSums) {
  for (const int n : {16, 40, 130}) {
    const TestWeight w(n, 24, DType::kBF16, 70);
    const auto x = random_floats(5 * 24, 71);
    const auto bias = random_floats(static_cast<std::size_t>(n), 72);
    std::vector<float> plain(static_cast<std::size_t>(5 * n));
    auto biased = plain;
    LinearParams p{
        .x = x.data(), .ldx = 24, .w = &w.packed, .y = plain.data(), .ldy = n, .rows = 5};
    for (int panel = 0; panel < panels_of(w.packed); ++panel) ops().linear(p, 0, 0, 5, panel);
    p.bias = bias.data();
    p.y = biased.data();
    for (int panel = 0; panel < panels_of(w.packed); ++panel) ops().linear(p, 0, 0, 5, panel);
    for (std::size_t i = 0; i < plain.size(); ++i) {
      ASSERT_EQ(biased[i], plain[i] + bias[i % static_cast<std::size_t>(n)]);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Tables, OpsTest, all_tables(), table_name);

}  // namespace
}  // namespace dsm::kernels
