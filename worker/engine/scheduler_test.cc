// The scheduler's rules: admission, budgets, priorities, what it refuses.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "worker/engine/scheduler_fixture.h"

namespace dsm::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

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
