// Each operator against a plain computation in double precision, and every table against the
// generic one, bit by bit.
#include "kernels/ops.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

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

class OpsTest : public testing::TestWithParam<const Ops*> {
 protected:
  const Ops& ops() const { return *GetParam(); }
};

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

// One sequence of `length` tokens with its cache in scattered blocks that held garbage before.
struct AttentionCase {
  static constexpr int kLatent = 32;
  static constexpr int kRope = 16;
  static constexpr int kHeads = 3;

  AttentionCase(const Ops& ops, int length) : tokens(length) {
    const int blocks = (length + kKvBlock - 1) / kKvBlock;
    for (int b = 0; b < blocks; ++b) table.push_back(blocks - 1 - b);
    keys.assign(static_cast<std::size_t>(blocks * kKvBlock * (kLatent + kRope)), std::nanf(""));
    values.assign(static_cast<std::size_t>(blocks * kKvBlock * kLatent), std::nanf(""));
    kv = {keys.data(), values.data(), 1, kLatent + kRope, kLatent};
    for (int t = 0; t < length; ++t)
      places.push_back({t, table[static_cast<std::size_t>(t / kKvBlock)]});
    const auto size = static_cast<std::size_t>(length);
    kv_a = random_floats(size * (kLatent + kRope), 40);
    norm = random_floats(kLatent, 41);
    for (int p = 0; p < length; ++p) {
      for (int i = 0; i < kRope / 2; ++i) {
        cos.push_back(std::cos(static_cast<float>(p * (i + 1)) * 0.1F));
        sin.push_back(std::sin(static_cast<float>(p * (i + 1)) * 0.1F));
      }
    }
    query = random_floats(size * kHeads * (kLatent + kRope), 42);
    ops.kv_write({kv_a.data(),
                  kLatent + kRope,
                  norm.data(),
                  places.data(),
                  kv,
                  {cos.data(), sin.data(), kRope / 2},
                  length,
                  1e-6F},
                 0, length);
  }

  // Only tokens from `begin` on, in items of `rows` pairs.
  std::vector<float> run(const Ops& ops, int begin, int rows) const {
    std::vector<AttentionItem> items;
    for (int at = begin * kHeads; at < tokens * kHeads; at += rows) {
      items.push_back({at, std::min(tokens * kHeads, at + rows), table.data()});
    }
    std::vector<float> out(static_cast<std::size_t>(tokens * kHeads * kLatent));
    const AttentionParams p{
        query.data(), out.data(), places.data(), items.data(), static_cast<int>(items.size()),
        kHeads,       kv,         0.2F};
    for (int i = 0; i < p.item_count; ++i) ops.attention(p, i);
    return out;
  }

  int tokens;
  std::vector<std::int32_t> table;
  std::vector<float> keys, values, kv_a, norm, cos, sin, query;
  KvLayer kv;
  std::vector<TokenPlace> places;
};

TEST_P(OpsTest, AttentionIsTheSoftmaxOverThePositionsUpToItsOwn) {
  const AttentionCase c(ops(), 150);
  const auto out = c.run(ops(), 0, kAttentionRows);
  // The cache as plain double vectors.
  constexpr int kDim = AttentionCase::kLatent + AttentionCase::kRope;
  std::vector<std::vector<double>> key(150, std::vector<double>(kDim));
  for (int t = 0; t < 150; ++t) {
    const float* from = c.kv_a.data() + t * kDim;
    double sum = 0;
    for (int i = 0; i < AttentionCase::kLatent; ++i) sum += static_cast<double>(from[i]) * from[i];
    for (int i = 0; i < AttentionCase::kLatent; ++i) {
      key[static_cast<std::size_t>(t)][static_cast<std::size_t>(i)] =
          from[i] / std::sqrt(sum / AttentionCase::kLatent + 1e-6) *
          c.norm[static_cast<std::size_t>(i)];
    }
    for (int i = 0; i < AttentionCase::kRope / 2; ++i) {
      const auto angle = static_cast<std::size_t>(t * AttentionCase::kRope / 2 + i);
      const double a = from[AttentionCase::kLatent + 2 * i];
      const double b = from[AttentionCase::kLatent + 2 * i + 1];
      key[static_cast<std::size_t>(t)][static_cast<std::size_t>(AttentionCase::kLatent + 2 * i)] =
          a * c.cos[angle] - b * c.sin[angle];
      key[static_cast<std::size_t>(t)]
         [static_cast<std::size_t>(AttentionCase::kLatent + 2 * i + 1)] =
             a * c.sin[angle] + b * c.cos[angle];
    }
  }
  for (int row = 0; row < 150 * AttentionCase::kHeads; ++row) {
    const int position = row / AttentionCase::kHeads;
    std::vector<double> p;
    double total = 0;
    for (int t = 0; t <= position; ++t) {
      double score = 0;
      for (int i = 0; i < kDim; ++i)
        score += c.query[static_cast<std::size_t>(row * kDim + i)] *
                 key[static_cast<std::size_t>(t)][static_cast<std::size_t>(i)];
      p.push_back(std::exp(0.2 * score));
      total += p.back();
    }
    for (int i = 0; i < AttentionCase::kLatent; ++i) {
      double wanted = 0;
      for (int t = 0; t <= position; ++t)
        wanted += p[static_cast<std::size_t>(t)] / total *
                  key[static_cast<std::size_t>(t)][static_cast<std::size_t>(i)];
      ASSERT_NEAR(out[static_cast<std::size_t>(row * AttentionCase::kLatent + i)], wanted, 2e-5)
          << "row " << row;
    }
  }
}

TEST_P(OpsTest, AttentionHasTheSameBitsHoweverItIsCutAndOnEveryTable) {
  const AttentionCase c(ops(), 150);
  const AttentionCase plain(*available_ops()[0], 150);
  const auto whole = c.run(ops(), 0, kAttentionRows);
  EXPECT_EQ(whole, plain.run(*available_ops()[0], 0, kAttentionRows));
  for (const int rows : {1, 2, 5, 7}) EXPECT_EQ(c.run(ops(), 0, rows), whole);
  auto tail = c.run(ops(), 149, 3);
  const auto last = static_cast<std::ptrdiff_t>(AttentionCase::kHeads * AttentionCase::kLatent);
  EXPECT_TRUE(std::equal(tail.end() - last, tail.end(), whole.end() - last));
}

struct Routed {
  std::vector<std::int32_t> chosen;
  std::vector<float> weights;
};

// Without a bias the softmax rule.
Routed route(const Ops& ops, std::vector<float> logits, const std::vector<float>& bias, int groups,
             int topk_groups, int top_k, bool normalise = true, float scale = 1.0F) {
  Routed routed{std::vector<std::int32_t>(static_cast<std::size_t>(top_k)),
                std::vector<float>(static_cast<std::size_t>(top_k))};
  const auto experts = static_cast<int>(logits.size());
  ops.router(
      {logits.data(), experts, bias.empty() ? RouterRule::kSoftmax : RouterRule::kSigmoidBias,
       bias.data(), 1, experts, groups, topk_groups, top_k, normalise, scale, routed.chosen.data(),
       routed.weights.data()},
      0, 1);
  return routed;
}

float sigmoid(float x) {
  return 1.0F / (1.0F + std::exp(-x));
}

TEST_P(OpsTest, RouterWeightsAreTheScoresWithoutTheBias) {
  const std::vector<float> logits{0.0F, 1.0F, 2.0F, 3.0F};
  const auto r = route(ops(), logits, {5.0F, 0.0F, 0.0F, 0.0F}, 1, 1, 2, true, 2.5F);
  EXPECT_EQ(r.chosen, (std::vector<std::int32_t>{0, 3}));
  const float sum = sigmoid(0) + sigmoid(3);
  EXPECT_NEAR(r.weights[0], sigmoid(0) / sum * 2.5F, 1e-6);
  EXPECT_NEAR(r.weights[1], sigmoid(3) / sum * 2.5F, 1e-6);
  EXPECT_NEAR(route(ops(), logits, {5.0F, 0.0F, 0.0F, 0.0F}, 1, 1, 2, false, 2.0F).weights[1],
              sigmoid(3) * 2.0F, 1e-6);
}

TEST_P(OpsTest, RouterScoresAGroupByItsTwoBest) {
  // The best expert stands in group 0, the best pair in group 1.
  const std::vector<float> logits{4.0F, -9.0F, 2.0F, 2.0F};
  EXPECT_EQ(route(ops(), logits, std::vector<float>(4), 2, 1, 1).chosen,
            (std::vector<std::int32_t>{2}));
}

TEST_P(OpsTest, RouterNeverTakesAnExpertOfAMaskedGroupEvenWhenAllBiasedScoresAreNegative) {
  const std::vector<float> logits{1.0F, 1.0F, -1.0F, -1.0F};
  const std::vector<float> bias(4, -3.0F);
  EXPECT_EQ(route(ops(), logits, bias, 2, 1, 2).chosen, (std::vector<std::int32_t>{0, 1}));
}

TEST_P(OpsTest, RouterTiesGoToTheLowestId) {
  EXPECT_EQ(route(ops(), std::vector<float>(8, 0.5F), std::vector<float>(8), 4, 2, 3).chosen,
            (std::vector<std::int32_t>{0, 1, 2}));
}

TEST_P(OpsTest, SoftmaxRouterWeightsAreProbabilitiesOverAllExperts) {
  // 20 experts: the second vector of lanes is not full.
  const auto logits = random_floats(20, 60, 2.0F);
  double total = 0;
  for (const float x : logits) total += std::exp(static_cast<double>(x));
  const auto r = route(ops(), logits, {}, 1, 1, 3, false, 16.0F);
  for (std::size_t i = 0; i < 3; ++i) {
    const auto expert = static_cast<std::size_t>(r.chosen[i]);
    EXPECT_NEAR(r.weights[i], std::exp(static_cast<double>(logits[expert])) / total * 16, 1e-5);
  }
  const auto generic = route(*available_ops()[0], logits, {}, 1, 1, 3, false, 16.0F);
  EXPECT_EQ(r.chosen, generic.chosen);
  EXPECT_EQ(r.weights, generic.weights);
  const auto normalised = route(ops(), logits, {}, 1, 1, 3, true, 1.0F);
  EXPECT_NEAR(normalised.weights[0] + normalised.weights[1] + normalised.weights[2], 1.0F, 1e-6);
}

TEST_P(OpsTest, SoftmaxRouterScoresAGroupByItsBest) {
  // The best expert stands in group 0, the best pair in group 1.
  const std::vector<float> logits{4.0F, -9.0F, 2.0F, 2.0F};
  EXPECT_EQ(route(ops(), logits, {}, 2, 1, 1).chosen, (std::vector<std::int32_t>{0}));
  // Ties between groups and between experts: the lowest.
  EXPECT_EQ(route(ops(), std::vector<float>(8, 0.5F), {}, 4, 2, 3).chosen,
            (std::vector<std::int32_t>{0, 1, 2}));
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

// Grouped-query attention: 2 KV heads with 3 query heads each, pairs of halves rotated.
struct GroupedCase {
  static constexpr int kKvHeads = 2;
  static constexpr int kHeads = 3;
  static constexpr int kDim = 32;
  static constexpr int kLength = 100;

  explicit GroupedCase(const Ops& ops) {
    keys.assign(std::size_t{2} * kKvBlock * kKvHeads * kDim, std::nanf(""));
    values = keys;
    kv = {keys.data(), values.data(), kKvHeads, kDim, kDim};
    for (int t = 0; t < kLength; ++t) {
      places.push_back({t, table[t / kKvBlock]});
      for (int i = 0; i < kDim / 2; ++i) {
        cos.push_back(std::cos(static_cast<float>(t * (i + 1)) * 0.1F));
        sin.push_back(std::sin(static_cast<float>(t * (i + 1)) * 0.1F));
      }
    }
    const RopeTable rope{cos.data(), sin.data(), kDim / 2, true};
    ops.kv_write_heads({kv_in.data(), kv_in.data() + kKvHeads * kDim, 2 * kKvHeads * kDim,
                        places.data(), kv, rope, kLength},
                       0, kLength);
    ops.rope_query({q.data(), kKvHeads * kHeads * kDim, kDim, 0, query.data(), kDim, 0,
                    places.data(), rope, kLength, kKvHeads * kHeads},
                   0, kLength);
  }

  std::vector<float> run(const Ops& ops, int rows) const {
    std::vector<AttentionItem> items;
    for (int head = 0; head < kKvHeads; ++head) {
      for (int at = 0; at < kLength * kHeads; at += rows) {
        items.push_back({at, std::min(kLength * kHeads, at + rows), table, head});
      }
    }
    std::vector<float> out(query.size());
    const AttentionParams p{
        query.data(), out.data(), places.data(), items.data(), static_cast<int>(items.size()),
        kHeads,       kv,         0.2F};
    for (int i = 0; i < p.item_count; ++i) ops.attention(p, i);
    return out;
  }

  // Element i of a head's vector after rotation.
  double rotated(const float* x, int position, int i) const {
    const int half = kDim / 2;
    const auto angle = static_cast<std::size_t>(position * half + i % half);
    const double a = x[i % half];
    const double b = x[i % half + half];
    return i < half ? a * cos[angle] - b * sin[angle] : a * sin[angle] + b * cos[angle];
  }

  static constexpr std::int32_t table[] = {1, 0};
  std::vector<float> kv_in = random_floats(std::size_t{kLength} * 2 * kKvHeads * kDim, 80);
  std::vector<float> q = random_floats(std::size_t{kLength} * kKvHeads * kHeads * kDim, 81);
  std::vector<float> query = std::vector<float>(q.size());
  std::vector<float> keys, values, cos, sin;
  KvLayer kv;
  std::vector<TokenPlace> places;
};

TEST_P(OpsTest, GroupedAttentionGivesEachQueryHeadItsOwnKvHead) {
  using C = GroupedCase;
  const C c(ops());
  const auto out = c.run(ops(), kAttentionRows);
  for (int t = 0; t < C::kLength; ++t) {
    for (int h = 0; h < C::kKvHeads * C::kHeads; ++h) {
      const auto row = static_cast<std::size_t>((t * C::kKvHeads * C::kHeads + h) * C::kDim);
      std::vector<double> wanted(C::kDim);
      double total = 0;
      for (int s = 0; s <= t; ++s) {
        const float* key =
            c.kv_in.data() + (s * 2 * C::kKvHeads + h / C::kHeads) * static_cast<long>(C::kDim);
        double score = 0;
        for (int i = 0; i < C::kDim; ++i) {
          score += c.rotated(c.q.data() + row, t, i) * c.rotated(key, s, i);
        }
        const double p = std::exp(0.2 * score);
        total += p;
        const float* value = key + C::kKvHeads * C::kDim;
        for (int i = 0; i < C::kDim; ++i) wanted[static_cast<std::size_t>(i)] += p * value[i];
      }
      for (std::size_t i = 0; i < wanted.size(); ++i) {
        ASSERT_NEAR(out[row + i], wanted[i] / total, 2e-5) << "token " << t << " head " << h;
      }
    }
  }
  EXPECT_EQ(out, C(*available_ops()[0]).run(*available_ops()[0], kAttentionRows));
  for (const int rows : {1, 3, 7}) EXPECT_EQ(c.run(ops(), rows), out);
}

INSTANTIATE_TEST_SUITE_P(Tables, OpsTest,
                         testing::ValuesIn(available_ops().begin(), available_ops().end()),
                         [](const auto& table) { return std::string(table.param->name); });

TEST(Pack, ConvertsHalfPrecisionExactly) {
  // 1, -2, the largest, the smallest normal, the smallest subnormal, -0.
  const std::uint16_t bits[] = {0x3c00, 0xc000, 0x7bff, 0x0400, 0x0001, 0x8000};
  float values[6];
  to_float(reinterpret_cast<const std::byte*>(bits), DType::kF16, 6, values);
  EXPECT_EQ(values[0], 1.0F);
  EXPECT_EQ(values[1], -2.0F);
  EXPECT_EQ(values[2], 65504.0F);
  EXPECT_EQ(values[3], 0x1p-14F);
  EXPECT_EQ(values[4], 0x1p-24F);
  EXPECT_TRUE(std::signbit(values[5]));
}

}  // namespace
}  // namespace dsm::kernels
