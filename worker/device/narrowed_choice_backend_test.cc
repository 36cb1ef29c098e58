// Rows whose choice is narrowed, over several thread blocks of a GPU: the tokens of
// kernels/choose.h, down to the last token that stays.
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "worker/device/choice_fixture.h"

namespace dsm::device {
namespace {

using namespace kernels;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
// More than two thread blocks take, and a few.
constexpr int kVocab = 9001;

class NarrowedChoiceTest : public ChoiceTest {
 protected:
  // Every choice over a row of its own with these logits.
  void expect_equal_over(const std::vector<float>& row, const std::vector<Choice>& choices,
                         const std::string& what) {
    std::vector<float> logits;
    for (std::size_t r = 0; r < choices.size(); ++r) {
      logits.insert(logits.end(), row.begin(), row.end());
    }
    expect_equal(logits, static_cast<std::int64_t>(row.size()), static_cast<int>(row.size()),
                 choices, what);
  }

  // Two choices of which one keeps a little more, with noise that draws from what the other leaves
  // out: a last token that is another than the definition's is seen.
  void expect_same_end(const std::vector<float>& row, Choice less, Choice more,
                       const std::string& what) {
    std::vector<Choice> choices;
    for (int i = 0; i < 1000 && choices.size() < 4; ++i) {
      less.key = more.key = noise_key(7, i);
      if (choose_token(row, less) == choose_token(row, more)) continue;
      choices.push_back(less);
      choices.push_back(more);
    }
    ASSERT_EQ(choices.size(), 4) << what << " is decided by no noise";
    expect_equal_over(row, choices, what);
  }
};

// 60 tokens near the best, `apart` from each other and in no order, above all others.
std::vector<float> crowded(float apart) {
  auto row = random_floats(kVocab, 21, 2.0F);
  for (float& logit : row) logit -= 20.0F;
  for (int i = 0; i < 60; ++i) {
    row[size((i * 1733 + 11) % kVocab)] = 5.0F - apart * static_cast<float>(i);
  }
  return row;
}

TEST_F(NarrowedChoiceTest, EndsWithTheDefinitionsToken) {
  for (const float apart : {0.0F, 1e-6F, 1e-3F, 0.03F}) {
    const auto row = crowded(apart);
    const std::string what = "tokens " + std::to_string(apart) + " apart, ";
    expect_same_end(row, {.temperature = 1, .top_k = 40, .wanted = true},
                    {.temperature = 1, .top_k = 41, .wanted = true}, what + "top_k");
    expect_same_end(row, {.temperature = 0.9F, .top_p = 0.50F, .wanted = true},
                    {.temperature = 0.9F, .top_p = 0.53F, .wanted = true}, what + "top_p");
    expect_same_end(row, {.temperature = 2, .top_k = 50, .top_p = 0.9F, .wanted = true},
                    {.temperature = 2, .top_k = 52, .top_p = 0.9F, .wanted = true}, what + "both");
    expect_same_end(
        row, {.temperature = 2, .top_k = 3000, .top_p = 0.6F, .min_p = 0.2F, .wanted = true},
        {.temperature = 2, .top_k = 3000, .top_p = 0.63F, .min_p = 0.2F, .wanted = true},
        what + "all three");
  }
}

// Where top_k ends far behind top_p, and in bins of many tokens.
TEST_F(NarrowedChoiceTest, EndsWithTheDefinitionsTokenAmongMany) {
  const auto row = random_floats(kVocab, 22, 1.5F);
  expect_same_end(row, {.temperature = 1, .top_k = 600, .wanted = true},
                  {.temperature = 1, .top_k = 640, .wanted = true}, "top_k");
  expect_same_end(row, {.temperature = 1, .top_k = 5000, .top_p = 0.5F, .wanted = true},
                  {.temperature = 1, .top_k = 5000, .top_p = 0.55F, .wanted = true}, "top_p");
  expect_same_end(row, {.temperature = 2, .top_k = 2000, .top_p = 0.999F, .wanted = true},
                  {.temperature = 2, .top_k = 2200, .top_p = 0.999F, .wanted = true}, "both");
  expect_same_end(row, {.temperature = 1, .min_p = 0.3F, .wanted = true},
                  {.temperature = 1, .min_p = 0.25F, .wanted = true}, "min_p");
}

// So many equal logits that no list of them is kept.
TEST_F(NarrowedChoiceTest, OfEqualLogitsTheLowestTokensStay) {
  const std::vector<float> row(size(kVocab), -3.25F);
  expect_same_end(row, {.temperature = 1, .top_k = 5000, .wanted = true},
                  {.temperature = 1, .top_k = 5400, .wanted = true}, "top_k");
  expect_same_end(row, {.temperature = 1, .top_p = 0.30F, .wanted = true},
                  {.temperature = 1, .top_p = 0.33F, .wanted = true}, "top_p");
  expect_same_end(row, {.temperature = 1, .top_k = 6000, .top_p = 0.5F, .wanted = true},
                  {.temperature = 1, .top_k = 6400, .top_p = 0.5F, .wanted = true}, "both");
  expect_equal_over(row,
                    {{.key = 1, .temperature = 1, .top_k = 1, .wanted = true},
                     {.key = 2, .temperature = 1, .top_k = kVocab, .wanted = true},
                     {.key = 3, .temperature = 1, .top_p = 1e-6F, .wanted = true},
                     {.key = 4, .temperature = 1, .min_p = 1, .wanted = true}},
                    "extremes");
}

// The best token alone, where the others are below whatever temperature and noise make of it.
TEST_F(NarrowedChoiceTest, OfTokensFarBelowTheBestNoneIsDrawn) {
  const auto row = random_floats(kVocab, 23, 3.0F);
  std::vector<Choice> choices;
  for (const float temperature : {1e-30F, 1e-6F, 1e-3F, 0.02F, 0.1F}) {
    for (std::uint64_t key = 0; key < 2; ++key) {
      choices.push_back({.key = key, .temperature = temperature, .top_k = 50, .wanted = true});
      choices.push_back(
          {.key = key, .temperature = temperature, .top_k = 8000, .top_p = 0.99F, .wanted = true});
      choices.push_back({.key = key, .temperature = temperature, .min_p = 0.01F, .wanted = true});
    }
  }
  expect_equal_over(row, choices, "low temperatures");
}

// As a grammar leaves them.
TEST_F(NarrowedChoiceTest, MaskedTokensAreNeverTaken) {
  const auto values = random_floats(kVocab, 24, 2.0F);
  for (const int allowed : {0, 1, 2, 70}) {
    std::vector<float> row(size(kVocab), -kInfinity);
    for (int i = 0; i < allowed; ++i) {
      const auto token = size((i * 1201 + 4100) % kVocab);
      row[token] = values[token];
    }
    std::vector<Choice> choices;
    for (std::uint64_t key = 0; key < 2; ++key) {
      choices.push_back({.key = key, .temperature = 2, .top_k = 1, .wanted = true});
      choices.push_back({.key = key, .temperature = 2, .top_k = 60, .wanted = true});
      choices.push_back(
          {.key = key, .temperature = 2, .top_k = 500, .top_p = 0.9F, .wanted = true});
      choices.push_back({.key = key, .temperature = 2, .top_p = 0.97F, .wanted = true});
      choices.push_back({.key = key, .temperature = 2, .min_p = 0.05F, .wanted = true});
    }
    expect_equal_over(row, choices, std::to_string(allowed) + " allowed");
  }
}

// Rows of every kind side by side, one call after the other: what one leaves in scratch memory
// makes no difference to the next, whose rows stand elsewhere in it.
TEST_F(NarrowedChoiceTest, RowsAndCallsDoNotMeet) {
  for (const int vocab : {4096, 4097, 9001, 1, 8192}) {
    std::vector<Choice> choices;
    for (int r = 0; r < 9; ++r) {
      const std::uint64_t key = noise_key(static_cast<std::uint64_t>(vocab), r);
      choices.push_back({.key = key, .temperature = 1, .wanted = r % 4 != 3});
      if (r % 3 == 1) choices.back().top_k = 1 + r * 9;
      if (r % 3 != 0) choices.back().top_p = 0.4F + 0.07F * static_cast<float>(r);
      if (r % 5 == 4) choices.back().temperature = 0;
      if (r % 6 == 5) choices.back().min_p = 0.02F;
    }
    const auto seed = static_cast<unsigned>(vocab);
    expect_equal(random_floats(choices.size() * size(vocab), seed, 2.5F), vocab, vocab, choices,
                 std::to_string(vocab) + " tokens");
  }
}

}  // namespace
}  // namespace dsm::device
