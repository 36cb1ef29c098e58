// Groups with several KV caches: which of them a sequence is put into, and that each is used up,
// shared and emptied for itself.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "worker/engine/fake_model.h"
#include "worker/engine/placement.h"
#include "worker/engine/scheduler.h"

namespace dsm::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

std::optional<int> choose(const std::vector<CacheOffer>& offers, int blocks) {
  return choose_cache(offers, blocks);
}

TEST(Placement, TakesTheCacheWithMostRoom) {
  EXPECT_EQ(choose({{.free = 4}, {.free = 9}, {.free = 6}}, 2), 1);
  EXPECT_EQ(choose({{.free = 4}, {.free = 4}}, 2), 0) << "the first of equals";
}

TEST(Placement, TakesOneThatHasTheBeginningOfTheTextUnlessItIsMuchFuller) {
  EXPECT_EQ(choose({{.free = 10}, {.free = 10, .found = 1}}, 4), 1);
  // Three blocks that nobody computes again, and three that are taken once.
  EXPECT_EQ(choose({{.free = 10}, {.free = 5, .found = 3}}, 4), 1);
  EXPECT_EQ(choose({{.free = 10}, {.free = 3, .found = 3}}, 4), 0);
  EXPECT_EQ(choose({{.free = 10}, {.free = 5, .found = 1, .coming = 2}}, 4), 1)
      << "what is being computed is as good";
}

TEST(Placement, ANewTextGoesWhereLeastIsKept) {
  EXPECT_EQ(choose({{.free = 8, .kept = 3}, {.free = 8, .kept = 1}, {.free = 8, .kept = 2}}, 2), 1);
}

TEST(Placement, LeavesTheReserveToThoseThatRun) {
  EXPECT_EQ(choose({{.free = 3, .reserve = 1}}, 3), std::nullopt);
  EXPECT_EQ(choose({{.free = 4, .reserve = 1}}, 3), 0);
  EXPECT_EQ(choose({{.free = 3, .reserve = 1, .found = 1}}, 3), 0);
  EXPECT_EQ(choose({{.free = 9, .reserve = 8}, {.free = 3}}, 3), 1) << "the only one with room";
  EXPECT_EQ(choose({}, 1), std::nullopt);
}

// A text of its own for each `first`.
std::vector<TokenId> prompt(int size, TokenId first) {
  std::vector<TokenId> tokens(static_cast<std::size_t>(size));
  std::iota(tokens.begin(), tokens.end(), first * 1000);
  return tokens;
}

GenerateRequest request(int prompt_size, int max_tokens, TokenId first) {
  GenerateRequest r;
  r.prompt = prompt(prompt_size, first);
  r.max_tokens = max_tokens;
  return r;
}

SchedulerConfig two_of(int num_blocks) {
  return {.max_num_seqs = 8,
          .max_batch_tokens = 1024,
          .max_model_len = 1024,
          .num_blocks = num_blocks,
          .kv_caches = 2};
}

struct Loop {
  explicit Loop(const SchedulerConfig& config)
      : scheduler(config), model(config.num_blocks, 1000, 0, config.kv_caches) {}

  Batch step() {
    Batch batch = scheduler.schedule();
    EXPECT_TRUE(std::ranges::is_sorted(batch.rows, {}, &Row::rank));
    for (const Row& row : batch.rows) rank_of[row.sequence].insert(row.rank);
    if (!batch.rows.empty()) take(scheduler.commit(model.run(batch)));
    scheduler.check_invariants();
    return batch;
  }
  void run() {
    while (!scheduler.idle()) step();
  }
  void take(const std::vector<Output>& outputs) {
    for (const Output& o : outputs) {
      auto& received = tokens[o.sequence];
      received.insert(received.end(), o.tokens.begin(), o.tokens.end());
      cached[o.sequence] = o.cached_prompt_tokens;
    }
  }

  Scheduler scheduler;
  FakeModel model;
  std::map<SequenceId, std::set<int>> rank_of;  // in any step
  std::map<SequenceId, std::vector<TokenId>> tokens;
  std::map<SequenceId, int> cached;
};

TEST(KvCaches, SequencesAreSpreadAndEachHasWhatItWouldHaveAlone) {
  Loop loop(two_of(8));
  for (SequenceId id = 1; id <= 4; ++id) {
    loop.scheduler.submit(id, request(100, 40, static_cast<TokenId>(id)));
  }
  std::map<int, int> rows;
  for (const Row& row : loop.step().rows) ++rows[row.rank];
  EXPECT_THAT(rows, ElementsAre(std::pair(0, 2), std::pair(1, 2)));
  EXPECT_EQ(loop.scheduler.stats().blocks_used, 8) << "of both";
  loop.run();
  for (SequenceId id = 1; id <= 4; ++id) {
    EXPECT_EQ(loop.tokens[id], FakeModel::answer(prompt(100, static_cast<TokenId>(id)), 40));
    EXPECT_THAT(loop.rank_of[id], SizeIs(1)) << "it stays where it is";
  }
  EXPECT_EQ(loop.scheduler.stats().blocks_used, 0);
}

TEST(KvCaches, TwoHoldTwiceTheTokensOfOne) {
  SchedulerConfig config = two_of(4);
  const auto running = [&] {
    Loop loop(config);
    for (SequenceId id = 1; id <= 4; ++id) {
      loop.scheduler.submit(id, request(128, 64, static_cast<TokenId>(id)));
    }
    loop.step();
    return loop.scheduler.stats().running;
  };
  const int with_two = running();
  config.kv_caches = 1;
  EXPECT_EQ(with_two, 2 * running());
}

TEST(KvCaches, ASequenceIsNeverLongerThanOneOfThem) {
  EXPECT_EQ(two_of(4).context_limit(), 4 * kBlockTokens + 1);
}

TEST(KvCaches, APrefixIsFoundInTheCacheThatHasIt) {
  Loop loop(two_of(16));
  loop.scheduler.submit(1, request(200, 1, 1));
  loop.scheduler.submit(2, request(200, 1, 2));
  loop.run();
  ASSERT_NE(loop.rank_of[1], loop.rank_of[2]);
  loop.scheduler.submit(3, request(200, 1, 1));
  loop.scheduler.submit(4, request(200, 1, 2));
  loop.run();
  EXPECT_EQ(loop.rank_of[3], loop.rank_of[1]);
  EXPECT_EQ(loop.rank_of[4], loop.rank_of[2]);
  EXPECT_EQ(loop.cached[3], 192);
  EXPECT_EQ(loop.cached[4], 192);
}

TEST(KvCaches, TextsThatComeOneAfterTheOtherFillAllOfThem) {
  Loop loop(two_of(8));
  for (SequenceId id = 1; id <= 4; ++id) {
    loop.scheduler.submit(id, request(200, 1, static_cast<TokenId>(id)));
    loop.run();
  }
  EXPECT_EQ(loop.rank_of[1], loop.rank_of[3]);
  EXPECT_EQ(loop.rank_of[2], loop.rank_of[4]);
  EXPECT_NE(loop.rank_of[1], loop.rank_of[2]);
}

TEST(KvCaches, WhoWaitsForAPrefixSharesItWhereItIsComputed) {
  Loop loop(two_of(16));
  loop.scheduler.submit(1, request(400, 4, 1));
  loop.scheduler.submit(2, request(400, 4, 1));
  EXPECT_THAT(loop.step().rows, SizeIs(1)) << "the other cache has room, but would compute it anew";
  loop.run();
  EXPECT_EQ(loop.rank_of[2], loop.rank_of[1]);
  EXPECT_EQ(loop.cached[2], 384);
  EXPECT_EQ(loop.tokens[2], loop.tokens[1]);
}

TEST(KvCaches, AFullOnePreemptsItsOwnLastWhileTheOtherGoesOn) {
  SchedulerConfig config = two_of(4);
  config.prefix_caching = false;
  Loop loop(config);
  loop.scheduler.submit(1, request(60, 100, 1));   // grows to three blocks,
  loop.scheduler.submit(2, request(150, 100, 2));  // to four, alone in the other cache,
  loop.scheduler.submit(3, request(60, 100, 3));   // to three
  loop.step();
  ASSERT_EQ(loop.rank_of[1], loop.rank_of[3]);
  ASSERT_NE(loop.rank_of[1], loop.rank_of[2]);
  Batch batch;
  while (loop.scheduler.stats().preemptions == 0) batch = loop.step();
  ASSERT_THAT(batch.rows, SizeIs(2)) << "2 came before 3, and has what it needs";
  EXPECT_EQ(batch.rows[0].sequence, 1U);
  EXPECT_EQ(batch.rows[1].sequence, 2U);
  loop.run();
  EXPECT_EQ(loop.scheduler.stats().preemptions, 1U);
  EXPECT_EQ(loop.tokens[1], FakeModel::answer(prompt(60, 1), 100));
  EXPECT_EQ(loop.tokens[2], FakeModel::answer(prompt(150, 2), 100));
  EXPECT_EQ(loop.tokens[3], FakeModel::answer(prompt(60, 3), 100));
}

TEST(KvCaches, WhoWasPreemptedGoesOnWhereThereIsRoom) {
  SchedulerConfig config = two_of(4);
  config.prefix_caching = false;
  Loop loop(config);
  loop.scheduler.submit(1, request(60, 150, 1));
  loop.scheduler.submit(2, request(100, 3, 2));
  loop.scheduler.submit(3, request(60, 150, 3));
  loop.step();
  ASSERT_EQ(loop.rank_of[1], loop.rank_of[3]);
  ASSERT_NE(loop.rank_of[1], loop.rank_of[2]) << "it ends early and leaves its cache empty";
  loop.run();
  EXPECT_EQ(loop.scheduler.stats().preemptions, 1U);
  EXPECT_THAT(loop.rank_of[1], SizeIs(1));
  EXPECT_THAT(loop.rank_of[3], SizeIs(2)) << "it has moved";
  EXPECT_EQ(loop.tokens[3], FakeModel::answer(prompt(60, 3), 150));
}

TEST(KvCaches, AllAreForgottenWithTheGroup) {
  Loop loop(two_of(16));
  loop.scheduler.submit(1, request(200, 50, 1));
  loop.scheduler.submit(2, request(200, 50, 2));
  loop.step();
  loop.scheduler.schedule();
  loop.model.forget();
  EXPECT_THAT(loop.scheduler.requeue_all(), IsEmpty());
  loop.scheduler.check_invariants();
  EXPECT_EQ(loop.scheduler.stats().blocks_used, 0);
  EXPECT_EQ(loop.step().token_count(), 402U) << "everything is computed anew";
  loop.run();
  EXPECT_EQ(loop.tokens[1], FakeModel::answer(prompt(200, 1), 50));
  EXPECT_EQ(loop.tokens[2], FakeModel::answer(prompt(200, 2), 50));
}

}  // namespace
}  // namespace dsm::engine
