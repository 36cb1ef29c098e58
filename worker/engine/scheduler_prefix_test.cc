// What sequences share: blocks of a prefix, a prompt of several answers, adapters.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <utility>

#include "worker/engine/scheduler_fixture.h"

namespace dsm::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;

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

}  // namespace
}  // namespace dsm::engine
