// The indexer's operators and attention over what they select, against plain computations in double
// precision, and every table against the generic one, bit by bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/ops_fixture.h"
#include "kernels/ops.h"
#include "kernels/random_floats.h"

namespace dsm::kernels {
namespace {

std::size_t at(std::int64_t row, std::int64_t width, std::int64_t column) {
  return static_cast<std::size_t>(row * width + column);
}

// One sequence whose blocks stand in the cache in another order.
struct Case {
  static constexpr int kTokens = 150;
  static constexpr int kDim = 48;
  static constexpr int kPairs = 8;
  static constexpr int kHeads = 3;
  static constexpr int kTopK = 20;
  static constexpr int kWords = 3;
  static constexpr float kEps = 1e-6F;
  static constexpr std::int32_t kTable[kWords] = {2, 0, 1};

  explicit Case(const Ops& ops) {
    for (int t = 0; t < kTokens; ++t) {
      places.push_back({t, kTable[t / kKvBlock]});
      tables.push_back(kTable);
      for (int i = 0; i < kPairs; ++i) {
        cos.push_back(std::cos(static_cast<float>(t * (i + 1)) * 0.1F));
        sin.push_back(std::sin(static_cast<float>(t * (i + 1)) * 0.1F));
      }
    }
    ops.index_write({x.data(),
                     weight.data(),
                     bias.data(),
                     places.data(),
                     {keys.data(), kDim},
                     {cos.data(), sin.data(), kPairs, true},
                     kTokens,
                     kEps},
                    0, kTokens);
  }

  std::vector<double> key(int t) const {
    std::vector<double> key(kDim);
    double mean = 0;
    double variance = 0;
    for (int i = 0; i < kDim; ++i) mean += x[at(t, kDim, i)] / kDim;
    for (int i = 0; i < kDim; ++i) variance += std::pow(x[at(t, kDim, i)] - mean, 2) / kDim;
    for (std::size_t i = 0; i < kDim; ++i) {
      key[i] =
          (x[at(t, kDim, static_cast<int>(i))] - mean) / std::sqrt(variance + kEps) * weight[i] +
          bias[i];
    }
    for (std::size_t i = 0; i < kPairs; ++i) {
      const double c = cos[at(t, kPairs, static_cast<int>(i))];
      const double s = sin[at(t, kPairs, static_cast<int>(i))];
      const double a = key[i];
      const double b = key[i + kPairs];
      key[i] = a * c - b * s;
      key[i + kPairs] = a * s + b * c;
    }
    return key;
  }

  float cached(int t, int i) const {
    return keys[static_cast<std::size_t>((kTable[t / kKvBlock] * kDim + i) * kKvBlock +
                                         t % kKvBlock)];
  }

  // Blocks in parts of `part`, tokens one by one.
  std::vector<std::uint64_t> select(const Ops& ops, int part) {
    std::vector<float> scores(std::size_t{kIndexRows} * kWords * kKvBlock, std::nanf(""));
    std::vector<std::uint64_t> words(std::size_t{kTokens} * kWords);
    const IndexSelectParams p{.query = query.data(),
                              .weights = head_weights.data(),
                              .places = places.data(),
                              .block_tables = tables.data(),
                              .keys = {keys.data(), kDim},
                              .tokens = kTokens,
                              .heads = kHeads,
                              .top_k = kTopK,
                              .scale = 0.1F,
                              .scores = scores.data(),
                              .ld_scores = kWords * kKvBlock,
                              .selection = {words.data(), kWords}};
    for (int t = 0; t < kTokens; ++t) {
      const int blocks = t >= kTopK ? t / kKvBlock + 1 : 0;
      for (int b = 0; b < blocks; b += part) {
        ops.index_scores(p, t, b, std::min(blocks, b + part));
      }
      ops.index_select(p, t);
    }
    return words;
  }

  double score(int t, int s) const {
    double sum = 0;
    for (int h = 0; h < kHeads; ++h) {
      double dot = 0;
      for (int i = 0; i < kDim; ++i) {
        dot += static_cast<double>(query[at(t * kHeads + h, kDim, i)]) * cached(s, i);
      }
      sum += 0.1 * head_weights[at(t, kHeads, h)] * std::max(dot, 0.0);
    }
    return sum;
  }

  std::vector<float> x = random_floats(std::size_t{kTokens} * kDim, 1);
  std::vector<float> weight = random_floats(kDim, 2);
  std::vector<float> bias = random_floats(kDim, 3);
  std::vector<float> query = random_floats(std::size_t{kTokens} * kHeads * kDim, 4);
  std::vector<float> head_weights = random_floats(std::size_t{kTokens} * kHeads, 5);
  // What nobody has written must not be seen.
  std::vector<float> keys =
      std::vector<float>(std::size_t{kWords} * kKvBlock * kDim, std::nanf(""));
  std::vector<float> cos, sin;
  std::vector<TokenPlace> places;
  std::vector<const std::int32_t*> tables;
};

std::vector<int> positions_of(const std::uint64_t* words, int count) {
  std::vector<int> positions;
  for (int s = 0; s < count; ++s) {
    if ((words[s / kKvBlock] >> s % kKvBlock & 1) != 0) positions.push_back(s);
  }
  return positions;
}

class IndexerTest : public OnEveryTable {
 protected:
  static const Ops& generic() { return *available_ops()[0]; }
};

TEST_P(IndexerTest, KeysAreNormedWithMeanAndBiasAndRotatedAsHalves) {
  const Case c(ops());
  for (int t = 0; t < Case::kTokens; ++t) {
    const auto wanted = c.key(t);
    for (int i = 0; i < Case::kDim; ++i) {
      ASSERT_NEAR(c.cached(t, i), wanted[static_cast<std::size_t>(i)], 1e-5) << t << ", " << i;
    }
  }
}

TEST_P(IndexerTest, TheBestOfThePastAreSelected) {
  Case c(ops());
  const auto words = c.select(ops(), Case::kWords);
  for (int t = 0; t < Case::kTokens; ++t) {
    std::vector<int> wanted(static_cast<std::size_t>(t) + 1);
    std::iota(wanted.begin(), wanted.end(), 0);
    if (t >= Case::kTopK) {
      std::vector<double> score;
      for (const int s : wanted) score.push_back(c.score(t, s));
      std::stable_sort(wanted.begin(), wanted.end(), [&](int a, int b) {
        return score[static_cast<std::size_t>(a)] > score[static_cast<std::size_t>(b)];
      });
      wanted.resize(Case::kTopK);
      std::sort(wanted.begin(), wanted.end());
    }
    // Past the token's own position no bit is set.
    ASSERT_EQ(positions_of(words.data() + t * Case::kWords, Case::kWords * kKvBlock), wanted) << t;
  }
}

TEST_P(IndexerTest, TheSelectionIsTheSameHoweverItIsCutAndOnEveryTable) {
  Case c(ops());
  const auto words = c.select(ops(), Case::kWords);
  EXPECT_EQ(c.select(ops(), 1), words);
  Case plain(generic());
  EXPECT_EQ(plain.select(generic(), 2), words);
}

TEST_P(IndexerTest, OfEqualScoresTheLowerPositionsAreSelected) {
  Case c(ops());
  // No head says anything: every score is zero.
  std::fill(c.head_weights.begin(), c.head_weights.end(), 0.0F);
  const int last = Case::kTokens - 1;
  auto words = c.select(ops(), 1);
  std::vector<int> lowest(Case::kTopK);
  std::iota(lowest.begin(), lowest.end(), 0);
  EXPECT_EQ(positions_of(words.data() + last * Case::kWords, Case::kTokens), lowest);
  // Nor does a negative zero differ from zero.
  std::fill(c.head_weights.begin(), c.head_weights.end(), -0.0F);
  EXPECT_EQ(c.select(ops(), 1), words);
}

// Attention of one KV head over random keys and values.
struct SparseCase {
  static constexpr int kTokens = Case::kTokens;
  static constexpr int kHeads = 2;
  static constexpr int kDim = 16;

  std::vector<float> run(const Ops& ops, std::vector<std::uint64_t> words, int rows) {
    std::vector<TokenPlace> places;
    for (int t = 0; t < kTokens; ++t) places.push_back({t, Case::kTable[t / kKvBlock]});
    std::vector<AttentionItem> items;
    for (int from = 0; from < kTokens * kHeads; from += rows) {
      items.push_back({from, std::min(kTokens * kHeads, from + rows), Case::kTable});
    }
    std::vector<float> out(query.size());
    AttentionParams p{query.data(),
                      out.data(),
                      places.data(),
                      items.data(),
                      static_cast<int>(items.size()),
                      kHeads,
                      {keys.data(), values.data(), 1, kDim, kDim},
                      0.3F};
    if (!words.empty()) p.selection = {words.data(), Case::kWords};
    for (int i = 0; i < p.item_count; ++i) ops.attention(p, i);
    return out;
  }

  std::vector<double> wanted(int row, const std::vector<int>& positions) const {
    std::vector<double> sum(kDim);
    double total = 0;
    for (const int s : positions) {
      const std::int32_t block = Case::kTable[s / kKvBlock];
      double score = 0;
      for (int i = 0; i < kDim; ++i) {
        score += static_cast<double>(query[at(row, kDim, i)]) *
                 keys[at(block * kDim + i, kKvBlock, s % kKvBlock)];
      }
      const double p = std::exp(0.3 * score);
      total += p;
      for (std::size_t i = 0; i < kDim; ++i) {
        sum[i] += p * values[at(block * kKvBlock + s % kKvBlock, kDim, static_cast<int>(i))];
      }
    }
    for (double& value : sum) value /= total;
    return sum;
  }

  std::vector<float> query = random_floats(std::size_t{kTokens} * kHeads * kDim, 10);
  std::vector<float> keys = random_floats(std::size_t{3} * kKvBlock * kDim, 11);
  std::vector<float> values = random_floats(std::size_t{3} * kKvBlock * kDim, 12);
};

// Selections with empty blocks at the beginning, in the middle and nowhere, side by side.
std::vector<std::uint64_t> ragged_selection() {
  std::mt19937_64 random(6);
  std::vector<std::uint64_t> words(std::size_t{Case::kTokens} * Case::kWords);
  for (int t = 0; t < Case::kTokens; ++t) {
    std::uint64_t* mine = words.data() + t * Case::kWords;
    for (int b = 0; b * kKvBlock <= t; ++b) {
      const int seen = t + 1 - b * kKvBlock;
      const std::uint64_t past =
          seen < kKvBlock ? (std::uint64_t{1} << seen) - 1 : ~std::uint64_t{0};
      mine[b] = t % 3 == b ? 0 : random() & past;
    }
    mine[t / kKvBlock] |= std::uint64_t{1} << t % kKvBlock;
  }
  return words;
}

TEST_P(IndexerTest, AttentionIsOverTheSelectedPositions) {
  SparseCase c;
  const auto words = ragged_selection();
  const auto out = c.run(ops(), words, kAttentionRows);
  for (int row = 0; row < SparseCase::kTokens * SparseCase::kHeads; ++row) {
    const int token = row / SparseCase::kHeads;
    const auto wanted = c.wanted(row, positions_of(words.data() + token * Case::kWords, token + 1));
    for (int i = 0; i < SparseCase::kDim; ++i) {
      ASSERT_NEAR(out[at(row, SparseCase::kDim, i)], wanted[static_cast<std::size_t>(i)], 2e-5)
          << "row " << row;
    }
  }
}

TEST_P(IndexerTest, SparseAttentionHasTheSameBitsHoweverItIsCutAndOnEveryTable) {
  SparseCase c;
  const auto words = ragged_selection();
  const auto out = c.run(ops(), words, kAttentionRows);
  for (const int rows : {1, 2, 5, 7}) EXPECT_EQ(c.run(ops(), words, rows), out);
  EXPECT_EQ(c.run(generic(), words, kAttentionRows), out);
}

TEST_P(IndexerTest, AttentionOverAllThatIsSelectedHasTheBitsOfAttentionOverAll) {
  SparseCase c;
  std::vector<std::uint64_t> words(std::size_t{Case::kTokens} * Case::kWords);
  for (int t = 0; t < Case::kTokens; ++t) {
    for (int s = 0; s <= t; ++s) {
      words[at(t, Case::kWords, s / kKvBlock)] |= std::uint64_t{1} << s % kKvBlock;
    }
  }
  EXPECT_EQ(c.run(ops(), words, kAttentionRows), c.run(ops(), {}, kAttentionRows));
}

INSTANTIATE_TEST_SUITE_P(Tables, IndexerTest, all_tables(), table_name);

}  // namespace
}  // namespace dsm::kernels
