// Random histories: submit, cancel, full caches, lost groups and failed steps in any order. After
// each step the scheduler's own invariants hold, the budget was kept, and each sequence has
// received exactly the tokens it would have received alone.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "worker/engine/fake_model.h"
#include "worker/engine/scheduler.h"

namespace dsm::engine {
namespace {

constexpr int kVocab = 50;
constexpr TokenId kStopToken = 7;

class History {
 public:
  explicit History(std::uint32_t seed)
      : random_(seed),
        config_(draw_config()),
        scheduler_(config_),
        model_(config_.num_blocks, kVocab) {}

  void run(int steps) {
    for (int i = 0; i < steps; ++i) {
      if (one_in(3) && live_.size() < 12) {
        submit();
      }
      if (one_in(40) && !live_.empty()) {
        cancel_any();
      }
      step();
    }
    // Without newcomers everything ends: nothing waits for ever.
    int rounds = 0;
    while (!scheduler_.idle()) {
      step();
      ASSERT_LT(++rounds, 20000) << "sequences starve";
    }
    EXPECT_TRUE(live_.empty());
    EXPECT_EQ(scheduler_.stats().blocks_used, 0);
  }
  std::uint64_t preemptions() const { return scheduler_.stats().preemptions; }
  std::uint64_t hits() const { return scheduler_.stats().prefix_hit_tokens; }
  int finished() const { return finished_; }

 private:
  struct Live {
    GenerateRequest request;
    std::vector<TokenId> text;  // prompt and what was received
    int received = 0;
    bool cancelled = false;
  };

  int draw(int low, int high) { return std::uniform_int_distribution(low, high)(random_); }
  bool one_in(int n) { return draw(1, n) == 1; }

  SchedulerConfig draw_config() {
    SchedulerConfig c;
    c.max_num_seqs = draw(1, 6);
    c.max_batch_tokens = draw(c.max_num_seqs, 150);
    c.max_model_len = draw(20, 400);
    c.num_blocks = draw(1, 12);
    c.prefix_caching = !one_in(4);
    return c;
  }

  void submit() {
    Live live;
    GenerateRequest& r = live.request;
    const int limit = config_.context_limit();
    // Few different texts, so that prefixes are shared.
    const TokenId first = draw(0, 2);
    r.prompt.resize(
        static_cast<std::size_t>(draw(1, one_in(2) ? limit - 1 : std::min(60, limit - 1))));
    for (std::size_t i = 0; i < r.prompt.size(); ++i) {
      r.prompt[i] = (first + static_cast<TokenId>(i / 100)) % kVocab;
    }
    r.max_tokens = draw(1, 150);
    r.stop_tokens = {kStopToken};
    r.ignore_eos = !one_in(3);
    r.cache_salt = one_in(5) ? "other" : "";
    ASSERT_TRUE(admissible(config_, r));
    live.text = r.prompt;
    scheduler_.submit(++last_id_, r);
    live_.emplace(last_id_, std::move(live));
  }

  void cancel_any() {
    auto it = live_.begin();
    std::advance(it, draw(0, static_cast<int>(live_.size()) - 1));
    it->second.cancelled = true;
    if (const auto output = scheduler_.cancel(it->first)) {
      take({*output}, false);
    }
  }

  void step() {
    const Batch batch = scheduler_.schedule();
    if (batch.rows.empty()) {
      ASSERT_TRUE(live_.empty());
      return;
    }
    check(batch);
    if (one_in(30)) {
      cancel_any();  // while the step is under way
    }
    if (one_in(200)) {
      model_.run(batch);
      model_.forget();
      take(scheduler_.requeue_all(), true);
    } else if (one_in(400)) {
      model_.forget();
      take(scheduler_.fail_step(), true);
    } else {
      take(scheduler_.commit(model_.run(batch)), false);
    }
    scheduler_.check_invariants();
  }

  void check(const Batch& batch) {
    ASSERT_LE(batch.token_count(), static_cast<std::size_t>(config_.max_batch_tokens));
    ASSERT_LE(batch.rows.size(), static_cast<std::size_t>(config_.max_num_seqs));
    ASSERT_EQ(batch.rows[0].sequence, live_.begin()->first) << "the oldest is in every step";
    std::map<BlockId, SequenceId> written;
    for (const Row& row : batch.rows) {
      const std::vector<TokenId>& text = live_.at(row.sequence).text;
      const int end = row.start + static_cast<int>(row.tokens.size());
      ASSERT_FALSE(row.tokens.empty());
      ASSERT_EQ(static_cast<int>(row.block_table.size()), (end + kBlockTokens - 1) / kBlockTokens);
      ASSERT_LE(end, static_cast<int>(text.size()));
      ASSERT_TRUE(std::equal(row.tokens.begin(), row.tokens.end(), text.begin() + row.start));
      ASSERT_EQ(row.choices, end == static_cast<int>(text.size()) ? 1 : 0);
      for (int block = row.start / kBlockTokens; block <= (end - 1) / kBlockTokens; ++block) {
        const BlockId id = row.block_table[static_cast<std::size_t>(block)];
        ASSERT_TRUE(written.emplace(id, row.sequence).second) << "two rows write to one block";
      }
    }
    for (const Row& row : batch.rows) {
      for (const BlockId id : row.block_table) {
        const auto it = written.find(id);
        ASSERT_TRUE(it == written.end() || it->second == row.sequence)
            << "a block is read by one row while another writes to it";
      }
    }
  }

  void take(const std::vector<Output>& outputs, bool broken) {
    for (const Output& o : outputs) {
      const auto it = live_.find(o.sequence);
      ASSERT_NE(it, live_.end());
      Live& live = it->second;
      if (o.token) {
        ASSERT_FALSE(broken);
        ASSERT_EQ(*o.token, FakeModel::next(live.text, kVocab)) << "scheduling changed a token";
        live.text.push_back(*o.token);
        ++live.received;
      }
      if (o.finished) {
        check_end(live, *o.finished, broken);
        live_.erase(it);
        ++finished_;
      }
    }
  }

  void check_end(const Live& live, FinishReason reason, bool broken) {
    switch (reason) {
      case FinishReason::kCancelled:
        ASSERT_TRUE(live.cancelled);
        break;
      case FinishReason::kDeadline:
        FAIL() << "no sequence has a deadline";
      case FinishReason::kError:
        ASSERT_TRUE(broken);
        break;
      case FinishReason::kStop:
        ASSERT_EQ(FakeModel::next(live.text, kVocab), kStopToken);
        ASSERT_FALSE(live.request.ignore_eos);
        break;
      case FinishReason::kLength:
        ASSERT_TRUE(live.received == live.request.max_tokens ||
                    static_cast<int>(live.text.size()) == config_.context_limit());
        break;
    }
  }

  std::mt19937 random_;
  SchedulerConfig config_;
  Scheduler scheduler_;
  FakeModel model_;
  std::map<SequenceId, Live> live_;
  SequenceId last_id_ = 0;
  int finished_ = 0;
};

TEST(SchedulerProperty, TokensAndBlocksAreRightInAnyHistory) {
  std::uint64_t preemptions = 0;
  std::uint64_t hits = 0;
  int finished = 0;
  for (std::uint32_t seed = 1; seed <= 250; ++seed) {
    SCOPED_TRACE(seed);
    History history(seed);
    history.run(500);
    if (HasFatalFailure()) {
      return;
    }
    preemptions += history.preemptions();
    hits += history.hits();
    finished += history.finished();
  }
  // The histories do reach what they are meant to reach.
  EXPECT_GT(preemptions, 200U);
  EXPECT_GT(hits, 20000U);
  EXPECT_GT(finished, 5000);
}

// The same calls give the same batches: what a fresh scheduler decides does not depend on its
// random hash key or on addresses.
TEST(SchedulerProperty, DecisionsRepeatExactly) {
  const SchedulerConfig config{.max_num_seqs = 4, .max_batch_tokens = 64, .num_blocks = 8};
  const auto play = [&] {
    Scheduler scheduler(config);
    FakeModel model(config.num_blocks);
    std::vector<Batch> batches;
    for (SequenceId id = 1; id <= 20; ++id) {
      GenerateRequest r;
      r.prompt.assign(static_cast<std::size_t>(20 * id % 300 + 1), static_cast<TokenId>(id % 3));
      r.max_tokens = 40;
      scheduler.submit(id, r);
    }
    while (!scheduler.idle()) {
      batches.push_back(scheduler.schedule());
      if (batches.size() == 30) {
        model.forget();
        scheduler.requeue_all();
      } else {
        scheduler.commit(model.run(batches.back()));
      }
    }
    return batches;
  };
  EXPECT_TRUE(play() == play());
}

}  // namespace
}  // namespace dsm::engine
