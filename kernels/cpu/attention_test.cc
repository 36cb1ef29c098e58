// Attention of the CPU, of latent and of grouped heads, against a plain softmax in double
// precision, and every table against the generic one, bit by bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cpu/ops_fixture.h"
#include "kernels/random_floats.h"

namespace dsm::kernels {
namespace {

class AttentionTest : public OnEveryTable {};

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

TEST_P(AttentionTest, AttentionIsTheSoftmaxOverThePositionsUpToItsOwn) {
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

TEST_P(AttentionTest, AttentionHasTheSameBitsHoweverItIsCutAndOnEveryTable) {
  const AttentionCase c(ops(), 150);
  const AttentionCase plain(*available_ops()[0], 150);
  const auto whole = c.run(ops(), 0, kAttentionRows);
  EXPECT_EQ(whole, plain.run(*available_ops()[0], 0, kAttentionRows));
  for (const int rows : {1, 2, 5, 7}) EXPECT_EQ(c.run(ops(), 0, rows), whole);
  auto tail = c.run(ops(), 149, 3);
  const auto last = static_cast<std::ptrdiff_t>(AttentionCase::kHeads * AttentionCase::kLatent);
  EXPECT_TRUE(std::equal(tail.end() - last, tail.end(), whole.end() - last));
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

TEST_P(AttentionTest, GroupedAttentionGivesEachQueryHeadItsOwnKvHead) {
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

// Rows that begin and end inside of a block, and dimensions that fill no vector.
TEST_P(AttentionTest, ExpandedHeadsAreBlocksOfACache) {
  constexpr int kRows = kKvBlock + 37;
  constexpr int kBegin = 5;
  constexpr int kHeads = 2;
  constexpr int kNope = 20;
  constexpr int kRope = 8;
  constexpr int kValue = 24;
  constexpr float kUntouched = -7.0F;
  const auto x = random_floats(std::size_t{kRows} * kHeads * (kNope + kValue), 50);
  const auto rotated = random_floats(std::size_t{2} * kRope * kKvBlock, 51);
  std::vector<float> keys(std::size_t{2} * kHeads * (kNope + kRope) * kKvBlock, kUntouched);
  std::vector<float> values(std::size_t{2} * kHeads * kKvBlock * kValue, kUntouched);
  auto wanted_keys = keys;
  auto wanted_values = values;
  for (int r = kBegin; r < kRows; ++r) {
    for (int h = 0; h < kHeads; ++h) {
      const float* from = x.data() + (r * kHeads + h) * (kNope + kValue);
      const int block = r / kKvBlock;
      const int slot = r % kKvBlock;
      float* key = wanted_keys.data() + (block * kHeads + h) * (kNope + kRope) * kKvBlock + slot;
      for (int i = 0; i < kNope; ++i) key[i * kKvBlock] = from[i];
      for (int i = 0; i < kRope; ++i) {
        key[(kNope + i) * kKvBlock] =
            rotated[static_cast<std::size_t>((block * kRope + i) * kKvBlock + slot)];
      }
      float* value = wanted_values.data() + ((block * kHeads + h) * kKvBlock + slot) * kValue;
      std::copy_n(from + kNope, kValue, value);
    }
  }
  ops().heads_expand(
      {x.data(), rotated.data(), keys.data(), values.data(), kRows, kHeads, kNope, kRope, kValue},
      kBegin, kRows);
  EXPECT_EQ(keys, wanted_keys);
  EXPECT_EQ(values, wanted_values);
}

INSTANTIATE_TEST_SUITE_P(Tables, AttentionTest, all_tables(), table_name);

}  // namespace
}  // namespace dsm::kernels
