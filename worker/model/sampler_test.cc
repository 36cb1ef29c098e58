#include "worker/model/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <vector>

namespace dsm::model {
namespace {

using engine::SamplingParams;
using engine::TokenId;

// How often each token comes out over many positions.
std::map<TokenId, int> draw(const std::vector<float>& logits, SamplingParams params,
                            int times = 20000) {
  std::map<TokenId, int> count;
  for (int position = 0; position < times; ++position) ++count[sample(logits, params, position)];
  return count;
}

std::set<TokenId> drawn(const std::vector<float>& logits, SamplingParams params) {
  std::set<TokenId> tokens;
  for (const auto& [token, times] : draw(logits, params, 2000)) tokens.insert(token);
  return tokens;
}

TEST(Sampler, GreedyTakesTheHighestAndTheLowestIdOnATie) {
  EXPECT_EQ(sample(std::vector{0.5F, 2.0F, 1.0F}, {}, 7), 1);
  EXPECT_EQ(sample(std::vector{0.5F, 2.0F, 2.0F}, {}, 7), 1);
}

TEST(Sampler, NeverTakesANumberThatIsNone) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(sample(std::vector{nan, -3.0F, nan}, {}, 0), 1);
  EXPECT_EQ(sample(std::vector{nan, -3.0F, nan}, {.temperature = 1}, 0), 1);
}

TEST(Sampler, DrawsWithTheSoftmaxAtItsTemperature) {
  const std::vector<float> logits{0.0F, 1.0F, 2.0F, -1.0F};
  for (const float temperature : {0.5F, 1.0F, 2.0F}) {
    double total = 0;
    for (const float logit : logits) total += std::exp(logit / temperature);
    const int times = 20000;
    auto count = draw(logits, {.temperature = temperature, .seed = 42}, times);
    for (std::size_t i = 0; i < logits.size(); ++i) {
      const double p = std::exp(logits[i] / temperature) / total;
      const double deviation = std::sqrt(times * p * (1 - p));
      EXPECT_NEAR(count[static_cast<TokenId>(i)], times * p, 5 * deviation) << "token " << i;
    }
  }
}

TEST(Sampler, RepeatsItselfForTheSameSeedAndPositionOnly) {
  const std::vector<float> logits(100, 0.0F);
  const SamplingParams one{.temperature = 1, .seed = 1};
  EXPECT_EQ(sample(logits, one, 5), sample(logits, one, 5));
  EXPECT_GT(draw(logits, one, 100).size(), 40U);
  std::set<TokenId> by_seed;
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    by_seed.insert(sample(logits, {.temperature = 1, .seed = seed}, 5));
  }
  EXPECT_GT(by_seed.size(), 40U);
}

TEST(Sampler, TopKKeepsTheBestAndTheLowestIdsOnATie) {
  const std::vector<float> logits{1.0F, 3.0F, 1.0F, 3.0F, 1.0F};
  EXPECT_EQ(drawn(logits, {.temperature = 1, .top_k = 1}), (std::set<TokenId>{1}));
  EXPECT_EQ(drawn(logits, {.temperature = 5, .top_k = 3}), (std::set<TokenId>{0, 1, 3}));
  EXPECT_EQ(drawn(logits, {.temperature = 9, .top_k = 50}), (std::set<TokenId>{0, 1, 2, 3, 4}));
}

TEST(Sampler, TopPKeepsTheSmallestSetWithTheMass) {
  // Probabilities 0.5, 0.25, 0.125, 0.125.
  const std::vector<float> logits{std::log(4.0F), std::log(2.0F), 0.0F, 0.0F};
  EXPECT_EQ(drawn(logits, {.temperature = 1, .top_p = 0.4F}), (std::set<TokenId>{0}));
  EXPECT_EQ(drawn(logits, {.temperature = 1, .top_p = 0.6F}), (std::set<TokenId>{0, 1}));
  EXPECT_EQ(drawn(logits, {.temperature = 1, .top_p = 0.8F}), (std::set<TokenId>{0, 1, 2}));
  EXPECT_EQ(drawn(logits, {.temperature = 1, .top_p = 1e-6F}), (std::set<TokenId>{0}));
  // Renormalised after top_k: token 0 has two thirds of what is left.
  EXPECT_EQ(drawn(logits, {.temperature = 1, .top_k = 2, .top_p = 0.6F}), (std::set<TokenId>{0}));
}

TEST(Sampler, MinPKeepsWhatIsLikelyEnoughAgainstTheBest) {
  const std::vector<float> logits{std::log(4.0F), std::log(2.0F), 0.0F, -20.0F};
  EXPECT_EQ(drawn(logits, {.temperature = 1, .min_p = 0.3F}), (std::set<TokenId>{0, 1}));
  EXPECT_EQ(drawn(logits, {.temperature = 1, .min_p = 1.0F}), (std::set<TokenId>{0}));
}

// The narrowed choice against its definition: sorted whole, cut at the mass.
TEST(Sampler, TopPOfALargeVocabularyKeepsExactlyTheSmallestSet) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0, 1);
  for (const float top_p : {0.1F, 0.5F, 0.9F, 0.999F}) {
    std::vector<float> logits(5000);
    for (float& logit : logits) logit = normal(random);
    std::vector<TokenId> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    std::ranges::sort(order, [&](TokenId a, TokenId b) {
      return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)];
    });
    double total = 0;
    for (const float logit : logits) total += std::exp(static_cast<double>(logit));
    std::set<TokenId> nucleus;
    double mass = 0;
    for (const TokenId t : order) {
      if (mass >= top_p * total) break;
      mass += std::exp(static_cast<double>(logits[static_cast<std::size_t>(t)]));
      nucleus.insert(t);
    }
    for (int position = 0; position < 300; ++position) {
      const TokenId t = sample(logits, {.temperature = 1, .top_p = top_p}, position);
      ASSERT_TRUE(nucleus.contains(t)) << "top_p " << top_p;
    }
    if (nucleus.size() < 100) {  // small enough to be seen whole
      EXPECT_GT(drawn(logits, {.temperature = 1, .top_p = top_p}).size(), nucleus.size() * 9 / 10);
    }
  }
}

TEST(Sampler, InfinitiesAreNoReasonForATokenThatIsNone) {
  const float inf = std::numeric_limits<float>::infinity();
  EXPECT_EQ(sample(std::vector{0.0F, inf, inf}, {.temperature = 1, .top_p = 0.5F}, 0), 1);
  EXPECT_EQ(sample(std::vector{-inf, -inf}, {.temperature = 1, .top_p = 0.5F}, 0), 0);
  EXPECT_EQ(sample(std::vector{-inf, 0.0F}, {.temperature = 1, .min_p = 0.5F}, 0), 1);
}

}  // namespace
}  // namespace dsm::model
