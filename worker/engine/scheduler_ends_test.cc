// Cancelled, lost and failed steps, deadlines.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "worker/engine/scheduler_fixture.h"

namespace dsm::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

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

}  // namespace
}  // namespace dsm::engine
