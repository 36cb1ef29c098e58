// Guesses: where they come from, when they are made, and that they change nothing but the steps.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <numeric>

#include "worker/engine/fake_model.h"
#include "worker/engine/ngram_index.h"
#include "worker/engine/scheduler.h"

namespace dsm::engine {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using Method = SpeculationConfig::Method;

constexpr int kEcho = 3;

std::vector<TokenId> propose(const std::vector<TokenId>& text, int count) {
  return NgramIndex().propose(text, count);
}

TEST(NgramIndex, GuessesWhatFollowedTheSameEnd) {
  EXPECT_THAT(propose({1, 2, 3, 4, 5, 1, 2}, 3), ElementsAre(3, 4, 5));
  EXPECT_THAT(propose({1, 2, 3, 9, 1, 2}, 1), ElementsAre(3));
}

TEST(NgramIndex, GuessesNothingWithoutTwoTokensThatAgree) {
  EXPECT_THAT(propose({}, 3), IsEmpty());
  EXPECT_THAT(propose({1}, 3), IsEmpty());
  EXPECT_THAT(propose({1, 2, 3, 9, 2}, 3), IsEmpty());
  EXPECT_THAT(propose({1, 2, 3, 1, 2}, 0), IsEmpty());
}

TEST(NgramIndex, PrefersTheLongestAgreementAndThenTheLatest) {
  EXPECT_THAT(propose({7, 1, 2, 50, 8, 1, 2, 60, 7, 1, 2}, 1), ElementsAre(50));
  EXPECT_THAT(propose({8, 1, 2, 50, 8, 1, 2, 60, 7, 1, 2}, 1), ElementsAre(60));
}

TEST(NgramIndex, GoesOnWithAPeriod) {
  EXPECT_THAT(propose({1, 2, 3, 1, 2, 3, 1, 2}, 7), ElementsAre(3, 1, 2, 3, 1, 2, 3));
  EXPECT_THAT(propose({4, 4, 4}, 3), ElementsAre(4, 4, 4));
}

TEST(NgramIndex, FollowsATextThatGrows) {
  NgramIndex index;
  std::vector<TokenId> text{1, 2, 3};
  EXPECT_THAT(index.propose(text, 1), IsEmpty());
  text.insert(text.end(), {4, 2, 3});
  EXPECT_THAT(index.propose(text, 2), ElementsAre(4, 2));
  text.insert(text.end(), {5, 4, 2, 3});
  EXPECT_THAT(index.propose(text, 1), ElementsAre(5)) << "4 2 3 was followed by 5";
}

SchedulerConfig config_with(Method method, int tokens) {
  SchedulerConfig c{.max_num_seqs = 4,
                    .max_batch_tokens = 32,
                    .max_model_len = 512,
                    .num_blocks = 16,
                    .vocab_size = 1000};
  c.speculation = {.method = method, .tokens = tokens};
  return c;
}

GenerateRequest request(int prompt_size, int max_tokens) {
  GenerateRequest r;
  r.prompt.resize(static_cast<std::size_t>(prompt_size));
  std::iota(r.prompt.begin(), r.prompt.end(), 0);
  r.max_tokens = max_tokens;
  return r;
}

struct Loop {
  explicit Loop(const SchedulerConfig& config)
      : scheduler(config), model(config.num_blocks, 1000, kEcho) {}

  Batch step() {
    Batch batch = scheduler.schedule();
    for (const Output& o : scheduler.commit(model.run(batch))) {
      auto& received = tokens[o.sequence];
      received.insert(received.end(), o.tokens.begin(), o.tokens.end());
      if (o.finished) finished[o.sequence] = *o.finished;
    }
    scheduler.check_invariants();
    return batch;
  }
  int run() {
    int steps = 0;
    for (; !scheduler.idle(); ++steps) step();
    return steps;
  }

  Scheduler scheduler;
  FakeModel model;
  std::map<SequenceId, std::vector<TokenId>> tokens;
  std::map<SequenceId, FinishReason> finished;
};

TEST(Speculation, GivesTheSameTokensInFewerSteps) {
  const auto answer = FakeModel::answer(request(20, 1).prompt, 100, 1000, kEcho);
  for (const Method method : {Method::kNgram, Method::kMtp}) {
    Loop loop(config_with(method, 4));
    loop.scheduler.submit(1, request(20, 100));
    EXPECT_LT(loop.run(), 80);
    EXPECT_EQ(loop.tokens[1], answer);
    EXPECT_EQ(loop.finished[1], FinishReason::kLength);
    const SpeculationStats stats = loop.scheduler.stats().speculation;
    EXPECT_GT(stats.drafts, 0U);
    EXPECT_GT(stats.accepted_tokens, 20U);
    EXPECT_LT(stats.accepted_tokens, stats.draft_tokens);
    EXPECT_THAT(stats.accepted_per_position, SizeIs(4));
    EXPECT_EQ(std::accumulate(stats.accepted_per_position.begin(),
                              stats.accepted_per_position.end(), std::uint64_t{0}),
              stats.accepted_tokens);
    EXPECT_GE(stats.accepted_per_position[0], stats.accepted_per_position[3]);
  }
}

TEST(Speculation, LeavesTheBudgetToPrompts) {
  Loop loop(config_with(Method::kNgram, 4));
  loop.scheduler.submit(1, request(20, 100));
  while (loop.step().rows[0].drafts().empty()) {
  }
  loop.scheduler.submit(2, request(200, 1));
  while (loop.scheduler.stats().running + loop.scheduler.stats().waiting == 2) {
    const Batch batch = loop.step();
    if (batch.rows.size() == 2 && batch.rows[1].choices == 0) {
      EXPECT_THAT(batch.rows[1].tokens, SizeIs(31)) << "all but one token are the prompt's";
    }
  }
}

TEST(Speculation, DoesNotGuessBeyondTheEndOfTheAnswerOrTheContext) {
  SchedulerConfig config = config_with(Method::kNgram, 8);
  config.max_model_len = 60;
  Loop loop(config);
  loop.scheduler.submit(1, request(20, 30));
  loop.scheduler.submit(2, request(30, 1000));
  int generated = 0;
  while (!loop.scheduler.idle()) {
    for (const Row& row : loop.step().rows) {
      EXPECT_LE(row.start + static_cast<int>(row.tokens.size()), row.sequence == 1 ? 49 : 59);
      ++generated;
    }
  }
  EXPECT_EQ(loop.tokens[1], FakeModel::answer(request(20, 1).prompt, 30, 1000, kEcho));
  EXPECT_EQ(loop.tokens[2], FakeModel::answer(request(30, 1).prompt, 30, 1000, kEcho));
}

TEST(Speculation, EndsAtAStopTokenInTheMiddleOfGuesses) {
  const auto answer = FakeModel::answer(request(20, 1).prompt, 100, 1000, kEcho);
  // Each of the answer's tokens as stop token: some are first chosen where a draft was.
  for (const std::size_t at : {10U, 11U, 12U, 13U, 30U, 31U}) {
    const auto first = std::ranges::find(answer, answer[at]) - answer.begin();
    Loop loop(config_with(Method::kMtp, 5));
    GenerateRequest r = request(20, 100);
    r.stop_tokens = {answer[at]};
    loop.scheduler.submit(1, r);
    while (!loop.scheduler.idle()) {
      for (const Row& row : loop.step().rows) {
        EXPECT_THAT(row.drafts(), Each(::testing::Ne(answer[at]))) << "it is never worth a guess";
      }
    }
    EXPECT_EQ(loop.tokens[1], std::vector<TokenId>(answer.begin(), answer.begin() + first));
    EXPECT_EQ(loop.finished[1], FinishReason::kStop);
    EXPECT_EQ(loop.scheduler.stats().blocks_used, 0);
  }
}

TEST(Speculation, OnlyTextIsFoundInTheCacheLater) {
  Loop loop(config_with(Method::kMtp, 5));
  loop.scheduler.submit(1, request(20, 200));
  loop.run();
  // The same text as a prompt: what is found must be what the sequence received.
  GenerateRequest again = request(20, 40);
  again.prompt.insert(again.prompt.end(), loop.tokens[1].begin(), loop.tokens[1].end());
  const auto answer = FakeModel::answer(again.prompt, 40, 1000, kEcho);
  loop.scheduler.submit(2, again);
  EXPECT_EQ(loop.step().rows[0].start, 192);
  loop.run();
  EXPECT_EQ(loop.tokens[2], answer);
}

TEST(Speculation, HasBounds) {
  EXPECT_TRUE(validate(config_with(Method::kNgram, kMaxSpeculativeTokens)));
  EXPECT_FALSE(validate(config_with(Method::kNgram, kMaxSpeculativeTokens + 1)));
  EXPECT_FALSE(validate(config_with(Method::kMtp, 0)));
  EXPECT_FALSE(validate(config_with(Method::kNone, 2)));
}

}  // namespace
}  // namespace dsm::engine
