// What the scheduler says of the choice of a token: masks, penalties, logprobs, constraints.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "worker/engine/scheduler_fixture.h"

namespace dsm::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

TEST(Scheduler, MasksStopTokensUntilMinTokens) {
  const auto answer = FakeModel::answer(prompt(8), 5);
  Loop loop;
  GenerateRequest r = request(8, 20);
  r.stop_tokens = {answer[0]};
  r.min_tokens = 3;
  loop.scheduler.submit(1, r);
  int step = 0;
  for (; step < 5 && !loop.scheduler.idle(); ++step) {
    const Batch b = loop.step();
    EXPECT_EQ(b.rows[0].context.banned_choices, step < 3 ? 1 : 0);
    EXPECT_THAT(b.rows[0].context.banned, SizeIs(step < 3 ? 1 : 0));
  }
  EXPECT_NE(loop.tokens[1].at(0), answer[0]);
}

TEST(Scheduler, SendsTheTextThatPenaltiesLookAt) {
  Loop loop;
  GenerateRequest presence = request(8, 5);
  presence.sampling.presence_penalty = 1;
  GenerateRequest repetition = request(8, 5, 100);
  repetition.sampling.repetition_penalty = 1.5F;
  loop.scheduler.submit(1, presence);
  loop.scheduler.submit(2, repetition);
  loop.scheduler.submit(3, request(8, 5, 200));
  loop.step();
  const Batch b = loop.step();
  ASSERT_THAT(b.rows, SizeIs(3));
  const std::vector<TokenId> first{b.rows[0].tokens[0]};
  EXPECT_EQ(b.rows[0].context.history, first);
  EXPECT_EQ(b.rows[0].context.generated_from, 0);
  EXPECT_THAT(b.rows[1].context.history, SizeIs(9));
  EXPECT_EQ(b.rows[1].context.generated_from, 8);
  EXPECT_TRUE(b.rows[2].context == ChoiceContext{});
}

TEST(Scheduler, HandsOutLogprobsOfThePromptOnceAndDoesNotReadTheCacheForThem) {
  Loop loop;
  loop.scheduler.submit(1, request(200, 2));
  loop.run();
  GenerateRequest r = request(200, 3);
  r.prompt_logprobs = 0;
  r.sampling.logprobs = 0;
  loop.scheduler.submit(2, r);
  std::size_t received = 0;
  while (!loop.scheduler.idle()) {
    const Batch b = loop.scheduler.schedule();
    EXPECT_LE(b.token_count(), static_cast<std::size_t>(Scheduler::kScoredChunk));
    for (const Output& o : loop.scheduler.commit(loop.model.run(b))) {
      EXPECT_THAT(o.prompt_logprobs, SizeIs(received == 0 ? 199 : 0));
      EXPECT_THAT(o.logprobs, SizeIs(o.tokens.size()));
      EXPECT_EQ(o.cached_prompt_tokens, 0);
      received += o.tokens.size();
    }
  }
  EXPECT_EQ(received, 3U);
}

// Allows one answer.
class Script final : public TokenConstraint {
 public:
  explicit Script(std::vector<TokenId> tokens) : tokens_(std::move(tokens)) {}
  bool fill_mask(std::span<std::uint32_t> mask) override {
    std::ranges::fill(mask, 0U);
    if (at_ < tokens_.size()) {
      const auto t = static_cast<std::size_t>(tokens_[at_]);
      mask[t / 32] = 1U << (t % 32);
    }
    return true;
  }
  bool accept(TokenId token) override {
    if (at_ >= tokens_.size() || tokens_[at_] != token) {
      return false;
    }
    ++at_;
    return true;
  }
  void rollback(int tokens) override { at_ -= static_cast<std::size_t>(tokens); }

 private:
  std::vector<TokenId> tokens_;
  std::size_t at_ = 0;
};

TEST(Scheduler, FollowsAConstraintAndEndsWithAnErrorWhereItAllowsNothing) {
  SchedulerConfig config = small();
  config.vocab_size = 1000;
  Loop loop(config);
  GenerateRequest r = request(8, 3);
  r.constraint = std::make_shared<Script>(std::vector<TokenId>{500, 31, 32});
  loop.scheduler.submit(1, r);
  loop.run();
  EXPECT_THAT(loop.tokens[1], ElementsAre(500, 31, 32));
  EXPECT_EQ(loop.finished[1], FinishReason::kLength);

  r.constraint = std::make_shared<Script>(std::vector<TokenId>{7});
  loop.scheduler.submit(2, r);
  loop.step();
  const Batch b = loop.scheduler.schedule();
  const auto outputs = loop.scheduler.commit(loop.model.run(b));
  ASSERT_THAT(outputs, SizeIs(1));
  EXPECT_EQ(outputs[0].finished, FinishReason::kError);
  ASSERT_TRUE(outputs[0].error);
  EXPECT_THAT(outputs[0].error->message, HasSubstr("grammar"));
}

TEST(Scheduler, RefusesTokensAndConstraintsItCannotMask) {
  SchedulerConfig config = small();
  GenerateRequest r = request(8, 3);
  r.constraint = std::make_shared<Script>(std::vector<TokenId>{});
  EXPECT_FALSE(admissible(config, r)) << "the vocabulary is not known";
  config.vocab_size = 100;
  EXPECT_TRUE(admissible(config, r));
  r.sampling.logit_bias = {{.token = 100, .bias = 1}};
  EXPECT_FALSE(admissible(config, r));
  GenerateRequest minimum = request(8, 3);
  minimum.min_tokens = 4;
  EXPECT_FALSE(admissible(config, minimum));
  GenerateRequest scored = request(8, 3);
  scored.prompt_logprobs = kMaxLogprobs + 1;
  EXPECT_FALSE(admissible(config, scored));
}

TEST(SamplingParams, HaveBounds) {
  EXPECT_TRUE(validate(SamplingParams{}));
  EXPECT_TRUE(validate(SamplingParams{.temperature = 2, .top_k = 5, .top_p = 0.1F, .min_p = 1}));
  EXPECT_FALSE(validate(SamplingParams{.temperature = -0.1F}));
  EXPECT_FALSE(validate(SamplingParams{.temperature = NAN}));
  EXPECT_FALSE(validate(SamplingParams{.top_k = -1}));
  EXPECT_FALSE(validate(SamplingParams{.top_p = 0}));
  EXPECT_FALSE(validate(SamplingParams{.top_p = 1.1F}));
  EXPECT_FALSE(validate(SamplingParams{.min_p = -1}));
  EXPECT_TRUE(validate(SamplingParams{.presence_penalty = -2,
                                      .frequency_penalty = 2,
                                      .repetition_penalty = 1.3F,
                                      .logit_bias = {{.token = 5, .bias = -100}},
                                      .logprobs = kMaxLogprobs}));
  EXPECT_FALSE(validate(SamplingParams{.presence_penalty = 2.1F}));
  EXPECT_FALSE(validate(SamplingParams{.frequency_penalty = NAN}));
  EXPECT_FALSE(validate(SamplingParams{.repetition_penalty = 0}));
  EXPECT_FALSE(validate(SamplingParams{.logit_bias = {{.token = 5, .bias = 101}}}));
  EXPECT_FALSE(validate(SamplingParams{.logit_bias = {{.token = -5, .bias = 1}}}));
  EXPECT_FALSE(validate(SamplingParams{.logprobs = kMaxLogprobs + 1}));
}

}  // namespace
}  // namespace dsm::engine
