// Which rows the device may choose for.
#include "worker/model/row_choices.h"

#include <gtest/gtest.h>

#include <functional>

#include "base/random.h"
#include "kernels/draw.h"

namespace dsm::model {
namespace {

using engine::Row;

Row plain() {
  Row row;
  row.sequence = 4;
  row.tokens = {1, 8, 9};
  row.logits = row.choices = 3;
  return row;
}

TEST(RowChoices, AreTheDevicesWhereNothingButTheTokenIsWanted) {
  EXPECT_TRUE(chosen_on_device(plain()));
  Row row = plain();
  row.sampling = {.temperature = 1, .top_k = 3, .top_p = 0.5F, .min_p = 0.1F, .seed = 9};
  EXPECT_TRUE(chosen_on_device(row));
  row.context.banned = {3};
  EXPECT_TRUE(chosen_on_device(row)) << "at no position";
}

TEST(RowChoices, AreTheHostsForAnythingElse) {
  const std::function<void(Row&)> wishes[] = {
      [](Row& row) { row.choices = 0; },
      [](Row& row) { row.choices = 2; },
      [](Row& row) { row.sampling.logprobs = 0; },
      [](Row& row) { row.sampling.presence_penalty = 0.1F; },
      [](Row& row) { row.sampling.frequency_penalty = 0.1F; },
      [](Row& row) { row.sampling.repetition_penalty = 1.1F; },
      [](Row& row) { row.sampling.logit_bias = {{2, 1.0F}}; },
      [](Row& row) { row.context.masks = {7, 7, 7}; },
      [](Row& row) {
        row.context.banned = {3};
        row.context.banned_choices = 1;
      },
      [](Row& row) { row.context.prompt_next = {5}; },
      [](Row& row) { row.context.check_finite = true; },
  };
  for (const auto& wish : wishes) {
    Row row = plain();
    wish(row);
    EXPECT_FALSE(chosen_on_device(row)) << &wish - wishes;
  }
}

TEST(RowChoices, BecomeWhatTheSequenceReceives) {
  const auto tokens_of = [](std::vector<engine::TokenId> chosen) {
    return sample_of(plain(), chosen).tokens;
  };
  EXPECT_EQ(tokens_of({8, 9, 5}), (std::vector<engine::TokenId>{8, 9, 5}));
  EXPECT_EQ(tokens_of({8, 2, 5}), (std::vector<engine::TokenId>{8, 2}));
  EXPECT_EQ(tokens_of({7, 9, 5}), (std::vector<engine::TokenId>{7}));
  EXPECT_EQ(sample_of(plain(), std::vector<engine::TokenId>{7, 9, 5}).sequence, 4U);
}

// Kernels cannot call base/random.h's.
TEST(RowChoices, NoiseIsMixedAsEverythingElse) {
  for (const std::uint64_t x : {0ULL, 1ULL, 0x123456789abcdefULL, ~0ULL}) {
    EXPECT_EQ(kernels::mixed(x), mix64(x));
  }
}

}  // namespace
}  // namespace dsm::model
