// The scheduler's rules, one by one.
#include "worker/engine/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <numeric>

#include "worker/engine/fake_model.h"

namespace dsm::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

std::vector<TokenId> prompt(int size, TokenId first = 0) {
  std::vector<TokenId> tokens(static_cast<std::size_t>(size));
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

GenerateRequest request(int prompt_size, int max_tokens, TokenId first = 0) {
  GenerateRequest r;
  r.prompt = prompt(prompt_size, first);
  r.max_tokens = max_tokens;
  return r;
}

SchedulerConfig small() {
  return {.max_num_seqs = 4,
          .max_batch_tokens = 128,
          .max_model_len = 512,
          .num_blocks = 16,
          .prefix_caching = true,
          .max_waiting = 8};
}

// Runs steps with the fake model and collects what each sequence received.
struct Loop {
  explicit Loop(const SchedulerConfig& config = small())
      : scheduler(config), model(config.num_blocks) {}

  Batch step() {
    Batch batch = scheduler.schedule();
    if (!batch.rows.empty()) {
      take(scheduler.commit(model.run(batch)));
    }
    scheduler.check_invariants();
    return batch;
  }
  void run() {
    while (!scheduler.idle()) {
      step();
    }
  }
  void take(const std::vector<Output>& outputs) {
    for (const Output& o : outputs) {
      auto& received = tokens[o.sequence];
      received.insert(received.end(), o.tokens.begin(), o.tokens.end());
      if (o.finished) {
        finished[o.sequence] = *o.finished;
      }
      cached[o.sequence] = o.cached_prompt_tokens;
    }
  }

  Scheduler scheduler;
  FakeModel model;
  std::map<SequenceId, std::vector<TokenId>> tokens;
  std::map<SequenceId, FinishReason> finished;
  std::map<SequenceId, int> cached;
};

TEST(Scheduler, HasAnEmptyBatchWithoutWork) {
  Loop loop;
  EXPECT_THAT(loop.step().rows, IsEmpty());
  EXPECT_FALSE(loop.scheduler.step_in_flight());
}

TEST(Scheduler, ComputesAPromptThenDecodesUntilMaxTokens) {
  Loop loop;
  loop.scheduler.submit(1, request(10, 3));
  const Batch first = loop.step();
  ASSERT_THAT(first.rows, SizeIs(1));
  EXPECT_EQ(first.rows[0].tokens, prompt(10));
  EXPECT_EQ(first.rows[0].choices, 1);
  EXPECT_EQ(first.rows[0].logits, 1);
  const Batch second = loop.step();
  EXPECT_THAT(second.rows[0].tokens, ElementsAre(loop.tokens[1][0]));
  EXPECT_EQ(second.rows[0].start, 10);
  loop.run();
  EXPECT_EQ(loop.tokens[1], FakeModel::answer(prompt(10), 3));
  EXPECT_EQ(loop.finished[1], FinishReason::kLength);
  EXPECT_EQ(loop.scheduler.stats().blocks_used, 0);
}

TEST(Scheduler, CutsALongPromptIntoChunksOfTheBudget) {
  Loop loop;
  loop.scheduler.submit(1, request(300, 1));
  std::vector<std::size_t> chunks;
  while (!loop.scheduler.idle()) {
    const Batch b = loop.step();
    chunks.push_back(b.token_count());
    EXPECT_EQ(b.rows[0].choices, chunks.size() == 3 ? 1 : 0);
    const auto end = static_cast<std::size_t>(b.rows[0].start) + b.token_count();
    EXPECT_EQ(b.rows[0].next, end < 300 ? prompt(300)[end] : -1);
  }
  EXPECT_THAT(chunks, ElementsAre(128, 128, 44));
  EXPECT_EQ(loop.tokens[1], FakeModel::answer(prompt(300), 1));
}

TEST(Scheduler, DecodesRunningSequencesBesideAPromptsChunks) {
  Loop loop;
  loop.scheduler.submit(1, request(5, 10));
  loop.step();
  loop.scheduler.submit(2, request(300, 1, 1000));
  const Batch b = loop.step();
  ASSERT_THAT(b.rows, SizeIs(2));
  EXPECT_EQ(b.rows[0].sequence, 1U);
  EXPECT_THAT(b.rows[0].tokens, SizeIs(1));
  EXPECT_THAT(b.rows[1].tokens, SizeIs(127));
}

TEST(Scheduler, KnowsTheOldestArrivalOfItsQueueWhateverThePriorities) {
  SchedulerConfig config = small();
  config.max_num_seqs = 1;
  Loop loop(config);
  const TimePoint begin{std::chrono::hours(1)};
  EXPECT_FALSE(loop.scheduler.stats().oldest_arrival);
  loop.scheduler.submit(1, request(8, 4), begin);
  loop.step();
  EXPECT_FALSE(loop.scheduler.stats().oldest_arrival) << "what runs does not wait";
  loop.scheduler.submit(2, request(8, 4), begin + Seconds(1));
  GenerateRequest urgent = request(8, 4);
  urgent.priority = -5;
  loop.scheduler.submit(3, std::move(urgent), begin + Seconds(2));
  EXPECT_EQ(loop.scheduler.stats().oldest_arrival, begin + Seconds(1));
}

TEST(Scheduler, AdmitsInOrderUpToMaxNumSeqs) {
  Loop loop;
  for (SequenceId id = 1; id <= 6; ++id) {
    loop.scheduler.submit(id, request(4, 2, static_cast<TokenId>(id * 10)));
  }
  const Batch b = loop.step();
  ASSERT_THAT(b.rows, SizeIs(4));
  EXPECT_EQ(b.rows[3].sequence, 4U);
  EXPECT_EQ(loop.scheduler.stats().waiting, 2);
  loop.run();
  EXPECT_THAT(loop.finished, SizeIs(6));
}

TEST(Scheduler, DoesNotLetAShortRequestPassALongOneAtTheFront) {
  SchedulerConfig config = small();
  config.num_blocks = 4;
  Loop loop(config);
  loop.scheduler.submit(1, request(128, 60));
  loop.scheduler.submit(2, request(192, 1, 1000));  // needs 3 blocks, 2 are free
  loop.scheduler.submit(3, request(4, 1, 5000));
  const Batch b = loop.step();
  ASSERT_THAT(b.rows, SizeIs(1));
  loop.run();
  EXPECT_THAT(loop.finished, SizeIs(3));
}

TEST(Scheduler, EndsAtAStopTokenAndDoesNotHandItOut) {
  const auto answer = FakeModel::answer(prompt(8), 5);
  Loop loop;
  GenerateRequest r = request(8, 20);
  r.stop_tokens = {answer[4]};
  loop.scheduler.submit(1, r);
  r.ignore_eos = true;
  r.max_tokens = 6;
  loop.scheduler.submit(2, r);
  loop.run();
  EXPECT_THAT(loop.tokens[1], ElementsAre(answer[0], answer[1], answer[2], answer[3]));
  EXPECT_EQ(loop.finished[1], FinishReason::kStop);
  EXPECT_THAT(loop.tokens[2], SizeIs(6));
  EXPECT_EQ(loop.finished[2], FinishReason::kLength);
}

TEST(Scheduler, EndsWithLengthWhenTheContextIsFull) {
  SchedulerConfig config = small();
  config.max_model_len = 70;
  Loop loop(config);
  loop.scheduler.submit(1, request(64, 1000));
  loop.run();
  EXPECT_THAT(loop.tokens[1], SizeIs(6));
  EXPECT_EQ(loop.finished[1], FinishReason::kLength);
}

TEST(Scheduler, UsesTheWholeCacheForOneSequence) {
  SchedulerConfig config = small();
  config.num_blocks = 2;
  EXPECT_EQ(config.context_limit(), 129);
  Loop loop(config);
  loop.scheduler.submit(1, request(100, 1000));
  loop.run();
  EXPECT_EQ(loop.tokens[1], FakeModel::answer(prompt(100), 29));
}

TEST(Scheduler, PreemptsTheYoungestAndRecomputesItWithItsTokens) {
  SchedulerConfig config = small();
  config.num_blocks = 4;
  Loop loop(config);
  loop.scheduler.submit(1, request(60, 120));
  loop.scheduler.submit(2, request(60, 120, 1000));
  loop.run();
  EXPECT_GT(loop.scheduler.stats().preemptions, 0U);
  EXPECT_EQ(loop.tokens[1], FakeModel::answer(prompt(60), 120));
  EXPECT_EQ(loop.tokens[2], FakeModel::answer(prompt(60, 1000), 120));
}

TEST(Scheduler, FindsASharedPrefixOfFullBlocks) {
  Loop loop;
  loop.scheduler.submit(1, request(130, 2));
  loop.run();
  loop.scheduler.submit(2, request(200, 2));
  const Batch b = loop.step();
  EXPECT_EQ(b.rows[0].start, 128);
  EXPECT_EQ(loop.cached[2], 128);
  loop.run();
  EXPECT_EQ(loop.tokens[2], FakeModel::answer(prompt(200), 2));
  EXPECT_EQ(loop.scheduler.stats().prefix_hit_tokens, 128U);
}

TEST(Scheduler, RecomputesTheLastTokenOfAPromptThatIsWhollyCached) {
  Loop loop;
  loop.scheduler.submit(1, request(128, 1));
  loop.run();
  loop.scheduler.submit(2, request(128, 1));
  const Batch b = loop.step();
  EXPECT_EQ(b.rows[0].start, 64);
  EXPECT_EQ(loop.tokens[2], loop.tokens[1]);
}

TEST(Scheduler, SharesABlockBetweenRunningSequences) {
  Loop loop;
  loop.scheduler.submit(1, request(70, 50));
  loop.step();
  loop.scheduler.submit(2, request(70, 50));
  const Batch b = loop.step();
  ASSERT_THAT(b.rows, SizeIs(2));
  EXPECT_EQ(b.rows[0].block_table[0], b.rows[1].block_table[0]);
  EXPECT_NE(b.rows[0].block_table[1], b.rows[1].block_table[1]);
  loop.run();
  EXPECT_EQ(loop.tokens[1], loop.tokens[2]);
}

TEST(Scheduler, FindsNothingAcrossSaltsOrWithTheCacheOff) {
  Loop salted;
  salted.scheduler.submit(1, request(130, 1));
  salted.run();
  GenerateRequest other = request(130, 1);
  other.cache_salt = "tenant-b";
  salted.scheduler.submit(2, other);
  salted.run();
  EXPECT_EQ(salted.cached[2], 0);

  SchedulerConfig config = small();
  config.prefix_caching = false;
  Loop off(config);
  off.scheduler.submit(1, request(130, 1));
  off.run();
  off.scheduler.submit(2, request(130, 1));
  off.run();
  EXPECT_EQ(off.cached[2], 0);
}

TEST(Scheduler, AdaptersShareStepsButNoCachedBlocks) {
  const auto sql = std::make_shared<const Adapter>(Adapter{.id = 7, .name = "sql"});
  const auto again = std::make_shared<const Adapter>(Adapter{.id = 8, .name = "sql"});
  Loop loop;
  auto adapted = request(130, 2);
  adapted.adapter = sql;
  loop.scheduler.submit(1, adapted);
  loop.scheduler.submit(2, request(130, 2));
  EXPECT_THAT(loop.scheduler.stats().waiting_adapters, ElementsAre("sql"));
  loop.step();
  const Batch both = loop.step();
  ASSERT_THAT(both.rows, SizeIs(2));
  EXPECT_EQ(both.rows[0].adapter, 7);
  EXPECT_EQ(both.rows[1].adapter, kNoAdapter);
  EXPECT_THAT(loop.scheduler.stats().running_adapters, ElementsAre("sql"));
  loop.run();
  EXPECT_EQ(loop.cached[2], 0);
  loop.scheduler.submit(3, adapted);
  adapted.adapter = again;  // the same name, loaded again
  loop.scheduler.submit(4, adapted);
  loop.run();
  EXPECT_EQ(loop.cached[3], 128);
  EXPECT_EQ(loop.cached[4], 0);
}

TEST(Scheduler, ASequenceHoldsItsAdapterUntilItHasEnded) {
  auto adapter = std::make_shared<const Adapter>(Adapter{.id = 1, .name = "sql"});
  const std::weak_ptr<const Adapter> held = adapter;
  Loop loop;
  auto adapted = request(10, 3);
  adapted.adapter = std::move(adapter);
  loop.scheduler.submit(1, std::move(adapted));
  loop.step();
  const Batch batch = loop.scheduler.schedule();
  loop.scheduler.cancel(1);
  EXPECT_FALSE(held.expired()) << "it is in the step under way";
  loop.take(loop.scheduler.commit(loop.model.run(batch)));
  EXPECT_TRUE(held.expired());
}

TEST(Scheduler, CancelsAWaitingAndARunningSequenceAtOnce) {
  SchedulerConfig config = small();
  config.max_num_seqs = 1;
  Loop loop(config);
  loop.scheduler.submit(1, request(10, 50));
  loop.scheduler.submit(2, request(10, 50));
  loop.step();
  EXPECT_EQ(loop.scheduler.cancel(2)->finished, FinishReason::kCancelled);
  EXPECT_EQ(loop.scheduler.cancel(1)->finished, FinishReason::kCancelled);
  EXPECT_FALSE(loop.scheduler.cancel(1));
  EXPECT_TRUE(loop.scheduler.idle());
  EXPECT_EQ(loop.scheduler.stats().blocks_used, 0);
}

TEST(Scheduler, CancelsASequenceInAStepWhenTheStepIsCommitted) {
  Loop loop;
  loop.scheduler.submit(1, request(10, 50));
  const Batch b = loop.scheduler.schedule();
  EXPECT_FALSE(loop.scheduler.cancel(1));
  const auto outputs = loop.scheduler.commit(loop.model.run(b));
  ASSERT_THAT(outputs, SizeIs(1));
  EXPECT_EQ(outputs[0].finished, FinishReason::kCancelled);
  EXPECT_THAT(outputs[0].tokens, IsEmpty());
  EXPECT_EQ(loop.scheduler.stats().blocks_used, 0);
}

TEST(Scheduler, RecomputesRunningSequencesAfterALostGroup) {
  Loop loop;
  loop.scheduler.submit(1, request(100, 10));
  loop.scheduler.submit(2, request(100, 10, 1000));
  loop.step();
  loop.step();
  loop.step();
  loop.scheduler.schedule();
  EXPECT_THAT(loop.scheduler.requeue_all(), IsEmpty());
  loop.model.forget();
  loop.scheduler.check_invariants();
  EXPECT_EQ(loop.scheduler.stats().running, 0);
  EXPECT_EQ(loop.scheduler.stats().blocks_used, 0);
  EXPECT_EQ(loop.step().rows[0].start, 0) << "nothing may be found in the lost cache";
  loop.run();
  EXPECT_EQ(loop.tokens[1], FakeModel::answer(prompt(100), 10));
  EXPECT_EQ(loop.tokens[2], FakeModel::answer(prompt(100, 1000), 10));
}

TEST(Scheduler, GivesUpASequenceThatLosesTheGroupEachTime) {
  Loop loop;
  loop.scheduler.submit(1, request(200, 10));
  loop.step();
  loop.step();  // the prompt is computed
  ASSERT_THAT(loop.tokens[1], SizeIs(1));
  for (int i = 1; i < Scheduler::kMaxLosses; ++i) {
    loop.scheduler.schedule();
    EXPECT_THAT(loop.scheduler.requeue_all(), IsEmpty());
    loop.model.forget();
    loop.step();  // a chunk of what it had before is no progress
  }
  loop.scheduler.schedule();
  const auto ended = loop.scheduler.requeue_all();
  ASSERT_THAT(ended, SizeIs(1));
  EXPECT_EQ(ended[0].finished, FinishReason::kError);
  EXPECT_TRUE(loop.scheduler.idle());
}

TEST(Scheduler, ForgivesLossesAfterANewToken) {
  Loop loop;
  loop.scheduler.submit(1, request(10, 20));
  for (int i = 0; i < 2 * Scheduler::kMaxLosses; ++i) {
    loop.scheduler.schedule();
    EXPECT_THAT(loop.scheduler.requeue_all(), IsEmpty());
    loop.model.forget();
    loop.step();
  }
  EXPECT_EQ(loop.tokens[1], FakeModel::answer(prompt(10), 2 * Scheduler::kMaxLosses));
}

TEST(Scheduler, EndsOnlyTheSequencesOfAFailedStep) {
  SchedulerConfig config = small();
  config.max_num_seqs = 1;
  Loop loop(config);
  loop.scheduler.submit(1, request(10, 10));
  loop.scheduler.submit(2, request(10, 10));
  loop.scheduler.schedule();
  const auto ended = loop.scheduler.fail_step();
  ASSERT_THAT(ended, SizeIs(1));
  EXPECT_EQ(ended[0].sequence, 1U);
  EXPECT_EQ(ended[0].finished, FinishReason::kError);
  loop.model.forget();
  loop.run();
  EXPECT_EQ(loop.tokens[2], FakeModel::answer(prompt(10), 10));
}

// --- the order in which sequences are served ---

TEST(Scheduler, ServesBetterPrioritiesFirstAndEqualOnesInOrder) {
  SchedulerConfig config = small();
  config.max_num_seqs = 1;
  Loop loop(config);
  int id = 0;
  for (const int priority : {1, 0, -5, 0, 1, -5}) {
    GenerateRequest r = request(4, 1, static_cast<TokenId>(10 * id));
    r.priority = priority;
    loop.scheduler.submit(static_cast<SequenceId>(++id), r);
  }
  std::vector<SequenceId> order;
  while (!loop.scheduler.idle()) {
    order.push_back(loop.step().rows[0].sequence);
  }
  EXPECT_THAT(order, ElementsAre(3, 6, 2, 4, 1, 5));
}

TEST(Scheduler, LetsARequestThatHasWaitedLongPassABetterPriority) {
  SchedulerConfig config = small();
  config.max_num_seqs = 1;
  Loop loop(config);
  const TimePoint start{};
  GenerateRequest low = request(4, 1);
  low.priority = 2;
  loop.scheduler.submit(1, low, start);
  loop.scheduler.submit(2, request(4, 1, 10), start + 2 * kPriorityWorth - Millis(1));
  loop.scheduler.submit(3, request(4, 1, 20), start + 2 * kPriorityWorth + Millis(1));
  std::vector<SequenceId> order;
  while (!loop.scheduler.idle()) {
    order.push_back(loop.step().rows[0].sequence);
  }
  EXPECT_THAT(order, ElementsAre(2, 1, 3));
}

TEST(Scheduler, DoesNotPreemptForAPriorityAlone) {
  SchedulerConfig config = small();
  config.max_num_seqs = 1;
  Loop loop(config);
  loop.scheduler.submit(1, request(4, 3));
  loop.step();
  GenerateRequest urgent = request(4, 1, 100);
  urgent.priority = -10;
  loop.scheduler.submit(2, urgent);
  EXPECT_EQ(loop.step().rows[0].sequence, 1U);
  EXPECT_EQ(loop.step().rows[0].sequence, 1U);
  EXPECT_EQ(loop.step().rows[0].sequence, 2U);
  EXPECT_EQ(loop.scheduler.stats().preemptions, 0U);
}

TEST(Scheduler, PreemptsTheLeastImportantWhenBlocksRunOut) {
  SchedulerConfig config = small();
  config.num_blocks = 4;
  Loop loop(config);
  GenerateRequest low = request(60, 120);
  low.priority = 1;
  loop.scheduler.submit(1, low);
  loop.step();
  loop.scheduler.submit(2, request(60, 120, 1000));
  while (loop.scheduler.stats().preemptions == 0) {
    loop.step();
  }
  EXPECT_EQ(loop.step().rows[0].sequence, 2U) << "the older one had to go";
  loop.run();
  EXPECT_EQ(loop.tokens[1], FakeModel::answer(prompt(60), 120));
  EXPECT_EQ(loop.tokens[2], FakeModel::answer(prompt(60, 1000), 120));
}

TEST(Scheduler, ComputesAPromptOnceForSeveralAnswers) {
  Loop loop;
  for (SequenceId id = 1; id <= 3; ++id) {
    loop.scheduler.submit(id, request(300, 5));
  }
  std::size_t prompt_tokens = 0;
  while (loop.tokens[3].empty()) {
    prompt_tokens += loop.step().token_count();
  }
  // 300 once and the last, partial block again for each of the others; a few tokens of the first.
  EXPECT_LT(prompt_tokens, 300U + 2 * 44 + 10);
  loop.run();
  EXPECT_EQ(loop.cached[1], 0);
  EXPECT_EQ(loop.cached[2], 256);
  EXPECT_EQ(loop.cached[3], 256);
  for (SequenceId id = 1; id <= 3; ++id) {
    EXPECT_EQ(loop.tokens[id], FakeModel::answer(prompt(300), 5));
  }
}

TEST(Scheduler, DoesNotWaitForAPromptUnderAnotherSalt) {
  Loop loop;
  loop.scheduler.submit(1, request(100, 5));
  GenerateRequest other = request(100, 5);
  other.cache_salt = "tenant-b";
  loop.scheduler.submit(2, other);
  EXPECT_THAT(loop.step().rows, SizeIs(2));
}

// --- deadlines ---

TEST(Scheduler, EndsWhatIsOutOfTimeInEveryState) {
  SchedulerConfig config = small();
  config.max_num_seqs = 2;
  Loop loop(config);
  const TimePoint start{};
  const auto submit = [&](SequenceId id, int prompt_size, Seconds deadline) {
    GenerateRequest r = request(prompt_size, 200, static_cast<TokenId>(1000 * id));
    r.deadline = start + deadline;
    loop.scheduler.submit(id, r);
  };
  submit(1, 10, Seconds(3));   // decodes
  submit(2, 300, Seconds(2));  // in its prompt
  submit(3, 10, Seconds(1));   // waits
  submit(4, 10, Seconds(9));
  loop.step();
  EXPECT_THAT(loop.scheduler.expire(start + Millis(999)), IsEmpty());
  const auto ended = [&](Seconds now) {
    std::vector<SequenceId> ids;
    for (const Output& o : loop.scheduler.expire(start + now)) {
      EXPECT_EQ(o.finished, FinishReason::kDeadline);
      ids.push_back(o.sequence);
    }
    loop.scheduler.check_invariants();
    return ids;
  };
  EXPECT_THAT(ended(Seconds(1)), ElementsAre(3));
  EXPECT_THAT(ended(Seconds(3)), ElementsAre(2, 1));
  EXPECT_EQ(loop.scheduler.stats().blocks_used, 0);

  const Batch batch = loop.scheduler.schedule();
  ASSERT_EQ(batch.rows[0].sequence, 4U);
  EXPECT_THAT(loop.scheduler.expire(start + Seconds(9)), IsEmpty()) << "it is in a step";
  const auto outputs = loop.scheduler.commit(loop.model.run(batch));
  ASSERT_THAT(outputs, SizeIs(1));
  EXPECT_EQ(outputs[0].finished, FinishReason::kDeadline);
  EXPECT_TRUE(loop.scheduler.idle());
}

TEST(Scheduler, KeepsTheFirstReasonOfAnEnd) {
  Loop loop;
  GenerateRequest r = request(10, 50);
  r.deadline = TimePoint() + Seconds(1);
  loop.scheduler.submit(1, r);
  loop.scheduler.schedule();
  loop.scheduler.cancel(1);
  loop.scheduler.expire(TimePoint() + Seconds(2));
  const auto ended = loop.scheduler.requeue_all();
  ASSERT_THAT(ended, SizeIs(1));
  EXPECT_EQ(ended[0].finished, FinishReason::kCancelled);
}

// --- what shifts the choice ---

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

TEST(Scheduler, RefusesRequestsThatCanNeverRunWithTheNumbers) {
  SchedulerConfig config = small();
  EXPECT_FALSE(admissible(config, request(0, 1)));
  EXPECT_FALSE(admissible(config, request(1, 0)));
  EXPECT_TRUE(admissible(config, request(511, 1)));
  const auto refused = admissible(config, request(512, 1));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::kInvalid);
  EXPECT_THAT(refused.error().message, HasSubstr("512"));
  config.num_blocks = 2;
  EXPECT_FALSE(admissible(config, request(129, 1)));
  GenerateRequest hot = request(1, 1);
  hot.sampling.temperature = 3;
  EXPECT_FALSE(admissible(config, hot));
}

TEST(Scheduler, RefusesAConfigurationThatCannotWork) {
  EXPECT_TRUE(validate(small()));
  for (auto field : {&SchedulerConfig::max_num_seqs, &SchedulerConfig::max_batch_tokens,
                     &SchedulerConfig::max_model_len, &SchedulerConfig::num_blocks,
                     &SchedulerConfig::max_waiting}) {
    SchedulerConfig config = small();
    config.*field = 0;
    EXPECT_FALSE(validate(config));
  }
  SchedulerConfig config = small();
  config.max_num_seqs = config.max_batch_tokens + 1;
  EXPECT_FALSE(validate(config));
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

TEST(Batch, ComparesByValue) {
  Row row;
  row.tokens = {1, 2};
  row.block_table = {0};
  Batch a;
  a.rows.push_back(row);
  Batch b = a;
  EXPECT_EQ(a, b);
  EXPECT_EQ(a.token_count(), 2U);
  b.rows[0].sampling.seed = 7;
  EXPECT_FALSE(a == b);
}

}  // namespace
}  // namespace dsm::engine
