// A row's choices: penalties, bias, masks, bans, drafts and log probabilities.
#include "worker/model/row_sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <set>
#include <vector>

namespace dsm::model {
namespace {

using engine::Row;
using engine::Sample;
using engine::TokenId;

constexpr std::size_t kVocab = 40;

std::vector<float> random_logits(std::size_t positions, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 2);
  std::vector<float> logits(positions * kVocab);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

// A row that chooses after `choices` last tokens; the text is one token and the drafts.
Row row_of(std::vector<TokenId> tokens) {
  Row row;
  row.sequence = 9;
  row.start = 100;
  row.choices = static_cast<std::int32_t>(tokens.size());
  row.logits = row.choices;
  row.tokens = std::move(tokens);
  return row;
}

std::vector<std::uint32_t> mask_of(const std::set<TokenId>& allowed) {
  std::vector<std::uint32_t> mask((kVocab + 31) / 32, 0);
  for (const TokenId t : allowed) {
    mask[static_cast<std::size_t>(t) / 32] |= 1U << (static_cast<unsigned>(t) % 32);
  }
  return mask;
}

TokenId choose_one(const Row& row, const std::vector<float>& logits) {
  return RowSampler(kVocab, kVocab).choose(row, logits).tokens.at(0);
}

TEST(RowSampler, RepetitionPenaltyDividesAPositiveLogitAndMultipliesANegativeOne) {
  std::vector<float> logits(kVocab, -9.0F);
  logits[3] = 2.0F;
  logits[4] = 1.1F;
  Row row = row_of({0});
  row.sampling.repetition_penalty = 2;
  row.context.history = {3};
  EXPECT_EQ(choose_one(row, logits), 4) << "2 / 2 is less than 1.1";
  logits[3] = -0.5F;
  logits[4] = -0.9F;
  EXPECT_EQ(choose_one(row, logits), 4) << "-0.5 * 2 is less than -0.9";
  row.context.history = {};
  EXPECT_EQ(choose_one(row, logits), 3);
}

TEST(RowSampler, PresenceAndFrequencyLookAtGeneratedTokensOnly) {
  std::vector<float> logits(kVocab, -9.0F);
  logits[3] = 2.0F;
  logits[4] = 1.5F;
  Row row = row_of({0});
  row.sampling.presence_penalty = 1;
  row.context.history = {3, 3, 5};
  row.context.generated_from = 2;
  EXPECT_EQ(choose_one(row, logits), 3) << "it stands in the prompt";
  row.context.generated_from = 1;
  EXPECT_EQ(choose_one(row, logits), 4);
  row.sampling.presence_penalty = 0;
  row.sampling.frequency_penalty = 0.3F;
  EXPECT_EQ(choose_one(row, logits), 3) << "once is 0.3";
  row.context.generated_from = 0;
  EXPECT_EQ(choose_one(row, logits), 4) << "twice is 0.6";
}

TEST(RowSampler, ATextLeavesNoTraceInTheNext) {
  std::vector<float> logits(kVocab, 0.0F);
  logits[3] = 1.0F;
  RowSampler sampler(kVocab, kVocab);
  Row row = row_of({0});
  row.sampling.presence_penalty = 2;
  row.context.history = {3, 3, 3};
  EXPECT_EQ(sampler.choose(row, logits).tokens.at(0), 0);
  row.context.history = {4};
  EXPECT_EQ(sampler.choose(row, logits).tokens.at(0), 3);
}

TEST(RowSampler, BiasIsAddedAndCanForbidOrForce) {
  const std::vector<float> logits = random_logits(1, 1);
  Row row = row_of({0});
  row.sampling.temperature = 1;
  const TokenId usual = choose_one(row, logits);
  row.sampling.logit_bias = {{.token = usual, .bias = -100}};
  EXPECT_NE(choose_one(row, logits), usual);
  row.sampling.logit_bias = {{.token = 17, .bias = 100}};
  EXPECT_EQ(choose_one(row, logits), 17);
}

TEST(RowSampler, OnlyTokensOfTheMaskAreTaken) {
  for (std::uint32_t seed = 0; seed < 200; ++seed) {
    const std::vector<float> logits = random_logits(1, seed);
    Row row = row_of({0});
    row.sampling.temperature = static_cast<float>(seed % 3);
    row.sampling.top_p = seed % 2 == 0 ? 0.5F : 1.0F;
    row.sampling.top_k = seed % 5 == 0 ? 3 : 0;
    row.sampling.seed = seed;
    const std::set<TokenId> allowed{1, 31, 32, 39};
    row.context.masks = mask_of(allowed);
    EXPECT_TRUE(allowed.contains(choose_one(row, logits)));
    row.context.masks = mask_of({});
    EXPECT_EQ(choose_one(row, logits), 0) << "nothing may come: some token must";
  }
}

TEST(RowSampler, TokensOfTheMaskThatAreNoNumbersAreTakenOnlyWhenAllAre) {
  std::vector<float> logits(kVocab, std::numeric_limits<float>::quiet_NaN());
  for (const float temperature : {0.0F, 1.0F}) {
    Row row = row_of({0});
    row.sampling.temperature = temperature;
    row.context.masks = mask_of({7, 9});
    EXPECT_EQ(choose_one(row, logits), 7);
    logits[9] = -std::numeric_limits<float>::infinity();
    EXPECT_TRUE(choose_one(row, logits) == 7 || choose_one(row, logits) == 9);
    logits[9] = -3;
    EXPECT_EQ(choose_one(row, logits), 9);
    logits[9] = std::numeric_limits<float>::infinity();
    EXPECT_EQ(choose_one(row, logits), 9);
    logits[9] = std::numeric_limits<float>::quiet_NaN();
  }
}

TEST(RowSampler, BannedTokensWaitUnlessNothingElseMayCome) {
  std::vector<float> logits(2 * kVocab, 0.0F);
  logits[6] = 9;
  logits[kVocab + 6] = 9;
  Row row = row_of({0, 0});
  row.context.banned = {6};
  row.context.banned_choices = 1;
  EXPECT_EQ(RowSampler(kVocab, kVocab).choose(row, logits).tokens, (std::vector<TokenId>{0, 6}));
  row.context.masks = mask_of({6});
  const auto second = mask_of({8});
  row.context.masks.insert(row.context.masks.end(), second.begin(), second.end());
  EXPECT_EQ(RowSampler(kVocab, kVocab).choose(row, logits).tokens, (std::vector<TokenId>{6}));
}

TEST(RowSampler, PaddingIsNeverTakenAndHasNoShare) {
  std::vector<float> logits(kVocab, 0.0F);
  logits[39] = 50;
  Row row = row_of({0});
  row.sampling.logprobs = 1;
  const Sample sample = RowSampler(kVocab, 30).choose(row, logits);
  EXPECT_EQ(sample.tokens.at(0), 0);
  EXPECT_NEAR(sample.logprobs.at(0).chosen.logprob, -std::log(30.0), 1e-6);
}

TEST(RowSampler, LogprobsAreOfTheModelsOwnDistribution) {
  const std::vector<float> logits = random_logits(1, 5);
  double total = 0;
  for (const float logit : logits) total += std::exp(static_cast<double>(logit));
  Row row = row_of({0});
  row.sampling.logprobs = 3;
  row.sampling.temperature = 0.3F;
  row.sampling.top_k = 2;
  row.sampling.logit_bias = {{.token = 17, .bias = 100}};
  const Sample sample = RowSampler(kVocab, kVocab).choose(row, logits);
  ASSERT_EQ(sample.logprobs.size(), 1U);
  const auto& position = sample.logprobs[0];
  EXPECT_EQ(position.chosen.token, 17);
  EXPECT_NEAR(position.chosen.logprob, logits[17] - std::log(total), 1e-5);
  ASSERT_EQ(position.top.size(), 3U);
  for (std::size_t i = 0; i < 3; ++i) {
    const auto at = static_cast<std::size_t>(position.top[i].token);
    EXPECT_NEAR(position.top[i].logprob, logits[at] - std::log(total), 1e-5);
    EXPECT_TRUE(i == 0 || position.top[i - 1].logprob >= position.top[i].logprob);
  }
  EXPECT_EQ(position.top[0].token, std::max_element(logits.begin(), logits.end()) - logits.begin());
}

TEST(RowSampler, LogprobsAreNumbersWhateverTheLogits) {
  std::vector<float> logits(kVocab, std::numeric_limits<float>::quiet_NaN());
  LogprobReader reader;
  EXPECT_EQ(reader.read(logits, 3, 20).chosen.logprob, engine::kLeastLogprob);
  logits[5] = 1;
  logits[6] = -std::numeric_limits<float>::infinity();
  EXPECT_EQ(reader.read(logits, 3, 20).chosen.logprob, engine::kLeastLogprob);
  EXPECT_EQ(reader.read(logits, 5, 20).chosen.logprob, 0.0F);
  EXPECT_EQ(reader.read(logits, 6, 20).chosen.logprob, engine::kLeastLogprob);
  EXPECT_EQ(reader.read(logits, 5, 20).top.size(), 2U);
  logits[7] = std::numeric_limits<float>::infinity();
  EXPECT_EQ(reader.read(logits, 5, 20).chosen.logprob, engine::kLeastLogprob);
}

TEST(RowSampler, PromptLogprobsAreOfTheTokensThatFollow) {
  const std::vector<float> logits = random_logits(3, 6);
  Row row = row_of({1, 2, 3});
  row.choices = 1;
  row.context.prompt_next = {2, 3};
  row.context.prompt_logprobs = 2;
  const Sample sample = RowSampler(kVocab, kVocab).choose(row, logits);
  ASSERT_EQ(sample.prompt_logprobs.size(), 2U);
  LogprobReader reader;
  const std::span<const float> all(logits);
  EXPECT_EQ(sample.prompt_logprobs[0], reader.read(all.first(kVocab), 2, 2));
  EXPECT_EQ(sample.prompt_logprobs[1], reader.read(all.subspan(kVocab, kVocab), 3, 2));
  EXPECT_EQ(sample.tokens.size(), 1U);
}

TEST(RowSampler, ARowThatContradictsItselfIsRefused) {
  RowSampler sampler(kVocab, kVocab);
  Row row = row_of({1, 2});
  EXPECT_THROW(sampler.choose(row, random_logits(1, 1)), std::logic_error);
  row.choices = 3;
  EXPECT_THROW(sampler.choose(row, random_logits(2, 1)), std::logic_error);
  row.choices = 2;
  row.context.masks = mask_of({1});
  EXPECT_THROW(sampler.choose(row, random_logits(2, 1)), std::logic_error);
}

// With every parameter at work, a row with drafts gives the tokens that rows without drafts give
// one after the other.
TEST(RowSampler, DraftsAreTakenExactlyWhileTheyAreWhatWouldBeChosen) {
  std::mt19937 random(11);
  int accepted = 0;
  for (std::uint32_t round = 0; round < 500; ++round) {
    constexpr std::size_t kDrafts = 4;
    const std::vector<float> logits = random_logits(kDrafts + 1, round);
    Row row = row_of({5});
    row.sampling = {.temperature = round % 4 == 0 ? 0.0F : 0.7F,
                    .top_k = round % 3 == 0 ? 4 : 0,
                    .top_p = round % 2 == 0 ? 0.8F : 1.0F,
                    .presence_penalty = round % 5 == 0 ? 1.0F : 0.0F,
                    .frequency_penalty = round % 7 == 0 ? 0.5F : 0.0F,
                    .repetition_penalty = round % 2 == 0 ? 1.2F : 1.0F,
                    .logprobs = 1,
                    .seed = round};
    row.context.history = {1, 2, 5};
    row.context.generated_from = 1;
    std::vector<std::vector<std::uint32_t>> masks;
    for (std::size_t i = 0; i <= kDrafts; ++i) {
      std::set<TokenId> allowed;
      for (int t = 0; t < 12; ++t) allowed.insert(static_cast<TokenId>(random() % kVocab));
      masks.push_back(mask_of(allowed));
    }
    row.context.banned = {static_cast<TokenId>(random() % kVocab)};

    std::vector<TokenId> one_by_one;
    std::vector<engine::PositionLogprobs> logprobs;
    Row single = row;
    for (std::size_t i = 0; i <= kDrafts; ++i) {
      single.start = row.start + static_cast<std::int32_t>(i);
      single.context.masks = masks[i];
      single.context.banned_choices = i < 2 ? 1 : 0;
      const Sample sample =
          RowSampler(kVocab, kVocab).choose(single, std::span(logits).subspan(i * kVocab, kVocab));
      one_by_one.push_back(sample.tokens.at(0));
      logprobs.push_back(sample.logprobs.at(0));
      single.context.history.push_back(sample.tokens.at(0));
    }

    // The first drafts are right, then one is wrong.
    const std::size_t right = round % (kDrafts + 1);
    for (std::size_t i = 0; i < kDrafts; ++i) {
      const TokenId wrong = (one_by_one[i] + 1) % static_cast<TokenId>(kVocab);
      row.tokens.push_back(i < right ? one_by_one[i] : wrong);
    }
    row.choices = kDrafts + 1;
    row.logits = row.choices;
    row.context.masks.clear();
    for (const auto& mask : masks) {
      row.context.masks.insert(row.context.masks.end(), mask.begin(), mask.end());
    }
    row.context.banned_choices = 2;
    const Sample sample = RowSampler(kVocab, kVocab).choose(row, logits);
    one_by_one.resize(right + 1);
    logprobs.resize(right + 1);
    ASSERT_EQ(sample.tokens, one_by_one) << "round " << round;
    ASSERT_EQ(sample.logprobs, logprobs);
    accepted += static_cast<int>(right);
  }
  EXPECT_EQ(accepted, 1000);
}

TEST(RowSampler, SaysWhenALogitIsNotFiniteIfItIsAsked) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  Row row = row_of({0});
  row.context.check_finite = true;
  std::vector<float> logits = random_logits(1, 5);
  EXPECT_TRUE(RowSampler(kVocab, kVocab).choose(row, logits).all_finite);
  for (const float strange : {std::numeric_limits<float>::quiet_NaN(), kInfinity, -kInfinity}) {
    logits[kVocab - 1] = strange;
    EXPECT_FALSE(RowSampler(kVocab, kVocab).choose(row, logits).all_finite);
    EXPECT_TRUE(RowSampler(kVocab, kVocab - 1).choose(row, logits).all_finite) << "padding";
  }
  row.context.check_finite = false;
  EXPECT_TRUE(RowSampler(kVocab, kVocab).choose(row, logits).all_finite);
}

}  // namespace
}  // namespace dsm::model
