// The engine's thread, inbox, sinks and recovery, with a scripted runner.
#include "worker/engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <numeric>

#include "worker/engine/fake_model.h"

namespace dsm::engine {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

SchedulerConfig small() {
  return {.max_num_seqs = 4,
          .max_batch_tokens = 64,
          .max_model_len = 256,
          .num_blocks = 16,
          .prefix_caching = true,
          .max_waiting = 3};
}

// Answers with the fake model's tokens; the test can hold steps back and script errors.
class ScriptedRunner final : public Runner {
 public:
  Status submit(Batch batch) override {
    const std::lock_guard lock(mutex_);
    if (const auto error = next_error()) {
      return std::unexpected(*error);
    }
    pending_ = std::move(batch);
    changed_.notify_all();
    return {};
  }
  Result<std::optional<Samples>> poll(TimePoint deadline) override {
    std::unique_lock lock(mutex_);
    changed_.wait_until(lock, deadline, [&] { return !pending_ || !held_ || !errors_.empty(); });
    if (const auto error = next_error()) {
      return std::unexpected(*error);
    }
    if (!pending_ || held_) {
      return std::nullopt;
    }
    return model_.run(*std::exchange(pending_, std::nullopt));
  }
  bool recover(TimePoint deadline) override {
    std::unique_lock lock(mutex_);
    ++recoveries_;
    changed_.wait_until(lock, deadline, [&] { return formed_; });
    return formed_;
  }

  void condemn(std::string /*why*/) override {}

  void set_formed(bool formed) {
    change([&] { formed_ = formed; });
  }
  void hold(bool held) {
    change([&] { held_ = held; });
  }
  void fail_once(ErrorKind kind) {
    change([&] { errors_.push_back({.kind = kind, .message = "rank 1 is gone"}); });
  }
  // Until a step is under way.
  void wait_for_step() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return pending_.has_value(); });
  }
  int recoveries() const {
    const std::lock_guard lock(mutex_);
    return recoveries_;
  }

 private:
  void change(const std::function<void()>& f) {
    const std::lock_guard lock(mutex_);
    f();
    changed_.notify_all();
  }
  std::optional<Error> next_error() {
    if (errors_.empty()) {
      return std::nullopt;
    }
    const Error error = errors_.front();
    errors_.pop_front();
    pending_.reset();
    model_.forget();
    return error;
  }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  FakeModel model_{16};
  std::optional<Batch> pending_;
  std::deque<Error> errors_;
  bool formed_ = true;
  bool held_ = false;
  int recoveries_ = 0;
};

// Collects one request's events and waits for its end. The sink may outlive it.
class Collector {
 public:
  TokenSink sink() {
    return [state = state_](const TokenEvent& event) {
      const std::lock_guard lock(state->mutex);
      state->tokens.insert(state->tokens.end(), event.tokens.begin(), event.tokens.end());
      state->finished = event.finished;
      state->error = event.error;
      state->times = event.times;
      state->changed.notify_all();
    };
  }
  FinishReason wait() {
    std::unique_lock lock(state_->mutex);
    state_->changed.wait(lock, [&] { return state_->finished.has_value(); });
    return *state_->finished;
  }
  void wait_for_token() {
    std::unique_lock lock(state_->mutex);
    state_->changed.wait(lock, [&] { return !state_->tokens.empty(); });
  }
  std::vector<TokenId> tokens() const {
    const std::lock_guard lock(state_->mutex);
    return state_->tokens;
  }
  std::optional<Error> error() const {
    const std::lock_guard lock(state_->mutex);
    return state_->error;
  }
  SequenceTimes times() const {
    const std::lock_guard lock(state_->mutex);
    return state_->times;
  }

 private:
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<TokenId> tokens;
    std::optional<FinishReason> finished;
    std::optional<Error> error;
    SequenceTimes times;
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

GenerateRequest request(std::vector<TokenId> prompt, int max_tokens) {
  GenerateRequest r;
  r.prompt = std::move(prompt);
  r.max_tokens = max_tokens;
  return r;
}

struct EngineTest : ::testing::Test {
  SystemClock clock;
  ScriptedRunner runner;
  std::unique_ptr<Engine> engine = std::make_unique<Engine>(small(), runner, clock, Logger());
};

TEST_F(EngineTest, HandsTokensToTheSinksInOrder) {
  Collector a;
  Collector b;
  ASSERT_TRUE(engine->submit(request({1, 2, 3}, 20), a.sink()));
  ASSERT_TRUE(engine->submit(request({9}, 5), b.sink()));
  EXPECT_EQ(a.wait(), FinishReason::kLength);
  EXPECT_EQ(b.wait(), FinishReason::kLength);
  EXPECT_EQ(a.tokens(), FakeModel::answer({1, 2, 3}, 20));
  EXPECT_EQ(b.tokens(), FakeModel::answer({9}, 5));
}

TEST_F(EngineTest, RefusesWhatCanNeverRun) {
  Collector c;
  const auto refused = engine->submit(request(std::vector<TokenId>(256), 1), c.sink());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::kInvalid);
  EXPECT_THAT(refused.error().message, HasSubstr("256"));
}

TEST_F(EngineTest, RefusesWhenTheQueueIsFullAndSaysWhenToComeBack) {
  runner.set_formed(false);
  runner.fail_once(ErrorKind::kTransient);
  Collector collectors[8];
  int accepted = 0;
  Result<SequenceId> last = 0;
  for (Collector& c : collectors) {
    last = engine->submit(request({1}, 1), c.sink());
    accepted += last.has_value() ? 1 : 0;
  }
  // Whether the first of them was already in a step is up to the engine's thread.
  EXPECT_GE(accepted, 3);
  ASSERT_FALSE(last);
  EXPECT_EQ(last.error().kind, ErrorKind::kExhausted);
  EXPECT_EQ(last.error().reason, "queue_full");
  EXPECT_GT(last.error().retry_after_s, 0);
}

TEST_F(EngineTest, RefusesWhenTooManyTokensWaitButNeverTheFirst) {
  SchedulerConfig config = small();
  config.max_waiting = 100;
  config.max_waiting_tokens = 150;
  runner.set_formed(false);
  engine.reset();
  engine = std::make_unique<Engine>(config, runner, clock, Logger());
  Collector first;
  ASSERT_TRUE(engine->submit(request(std::vector<TokenId>(200, 1), 1), first.sink()));
  Collector second;
  const auto refused = engine->submit(request({1}, 1), second.sink());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::kExhausted);
  EXPECT_EQ(refused.error().reason, "queue_tokens");
  EXPECT_GT(refused.error().retry_after_s, 0);
  EXPECT_THAT(refused.error().message, HasSubstr("150"));
  EXPECT_EQ(engine->stats().waiting_tokens, 200);
  runner.set_formed(true);
  EXPECT_EQ(first.wait(), FinishReason::kLength);
  while (engine->stats().waiting_tokens > 0) {
    std::this_thread::yield();
  }
  EXPECT_TRUE(engine->submit(request({1}, 1), second.sink()));
  EXPECT_EQ(second.wait(), FinishReason::kLength);
}

TEST_F(EngineTest, EndsWhatIsOutOfTimeWithoutAGroup) {
  runner.set_formed(false);
  engine.reset();
  engine = std::make_unique<Engine>(small(), runner, clock, Logger());
  Collector c;
  GenerateRequest r = request({1, 2}, 5);
  r.deadline = clock.now();
  ASSERT_TRUE(engine->submit(r, c.sink()));
  EXPECT_EQ(c.wait(), FinishReason::kDeadline);
  EXPECT_THAT(c.tokens(), IsEmpty());
}

TEST_F(EngineTest, EndsWhatWaitsWhileAStepTakesLong) {
  Collector running;
  runner.hold(true);
  ASSERT_TRUE(engine->submit(request({1}, 200), running.sink()));
  runner.wait_for_step();
  Collector late;
  GenerateRequest r = request({2}, 5);
  r.deadline = clock.now();
  ASSERT_TRUE(engine->submit(r, late.sink()));
  EXPECT_EQ(late.wait(), FinishReason::kDeadline);
  Collector unwanted;
  engine->cancel(*engine->submit(request({3}, 5), unwanted.sink()));
  EXPECT_EQ(unwanted.wait(), FinishReason::kCancelled);
  runner.hold(false);
  EXPECT_EQ(running.wait(), FinishReason::kLength);
}

TEST_F(EngineTest, EndsACancelledRequestAndFreesItsBlocks) {
  Collector c;
  runner.hold(true);
  const auto id = engine->submit(request({1, 2}, 200), c.sink());
  engine->cancel(*id);
  engine->cancel(12345);
  runner.hold(false);
  EXPECT_EQ(c.wait(), FinishReason::kCancelled);
  Collector other;
  ASSERT_TRUE(engine->submit(request({1}, 1), other.sink()));
  other.wait();
  EXPECT_EQ(engine->stats().running, 0);
}

TEST_F(EngineTest, MayBeCancelledFromASink) {
  Collector c;
  const auto id = std::make_shared<std::atomic<SequenceId>>(0);
  runner.hold(true);
  *id = *engine->submit(request({1}, 200), [=, this, record = c.sink()](const TokenEvent& event) {
    engine->cancel(*id);
    record(event);
  });
  runner.hold(false);
  EXPECT_EQ(c.wait(), FinishReason::kCancelled);
  EXPECT_LT(c.tokens().size(), 200U);
}

TEST_F(EngineTest, RecomputesAfterALostGroupSoThatTheClientSeesAPauseOnly) {
  Collector c;
  ASSERT_TRUE(engine->submit(request({4, 5}, 150), c.sink()));
  c.wait_for_token();
  runner.set_formed(false);
  runner.fail_once(ErrorKind::kTransient);
  runner.set_formed(true);
  EXPECT_EQ(c.wait(), FinishReason::kLength);
  EXPECT_EQ(c.tokens(), FakeModel::answer({4, 5}, 150));
  EXPECT_GE(runner.recoveries(), 1);
}

TEST_F(EngineTest, EndsTheSequencesOfAStepThatFailsForGood) {
  Collector c;
  runner.hold(true);
  ASSERT_TRUE(engine->submit(request({4, 5}, 50), c.sink()));
  runner.fail_once(ErrorKind::kInternal);
  EXPECT_EQ(c.wait(), FinishReason::kError);
  ASSERT_TRUE(c.error());
  EXPECT_EQ(c.error()->message, "rank 1 is gone");
  runner.hold(false);
  Collector next;
  ASSERT_TRUE(engine->submit(request({6}, 2), next.sink()));
  EXPECT_EQ(next.wait(), FinishReason::kLength);
  EXPECT_EQ(engine->stats().last_error, "rank 1 is gone");
}

TEST_F(EngineTest, NoticesALostGroupWithoutWork) {
  Collector c;
  ASSERT_TRUE(engine->submit(request({1}, 1), c.sink()));
  c.wait();
  const int before = runner.recoveries();
  runner.fail_once(ErrorKind::kTransient);
  while (runner.recoveries() == before) {
    std::this_thread::yield();
  }
  ASSERT_TRUE(engine->submit(request({2}, 3), c.sink()));
}

TEST_F(EngineTest, EndsWhatIsLeftWhenItStops) {
  Collector c;
  runner.hold(true);
  ASSERT_TRUE(engine->submit(request({1}, 50), c.sink()));
  engine.reset();
  EXPECT_EQ(c.wait(), FinishReason::kCancelled);
}

TEST_F(EngineTest, ShowsThatItsLoopMovesWhileAStepTakesLong) {
  Collector c;
  runner.hold(true);
  ASSERT_TRUE(engine->submit(request({1}, 1), c.sink()));
  const TimePoint before = engine->last_round();
  while (engine->last_round() == before) {
    std::this_thread::yield();
  }
  runner.hold(false);
  c.wait();
}

TEST_F(EngineTest, CountsWhatItDid) {
  Collector c;
  ASSERT_TRUE(engine->submit(request(std::vector<TokenId>(70, 3), 5), c.sink()));
  c.wait();
  ASSERT_TRUE(engine->submit(request(std::vector<TokenId>(70, 3), 5), c.sink()));
  EngineStats stats;
  do {
    stats = engine->stats();
  } while (stats.generation_tokens < 10 || stats.running > 0);
  EXPECT_EQ(stats.prompt_tokens, 140U);
  EXPECT_EQ(stats.prefix_query_tokens, 140U);
  EXPECT_EQ(stats.prefix_hit_tokens, 64U);
  EXPECT_EQ(stats.kv_blocks_total, 16);
  EXPECT_EQ(stats.waiting, 0);
  EXPECT_TRUE(stats.serving);
  EXPECT_EQ(stats.step_tokens.sum, 70 + 4 + 6 + 4) << "of which the second found 64";
  EXPECT_EQ(std::accumulate(stats.step_tokens.counts.begin(), stats.step_tokens.counts.end(), 0U),
            stats.steps);
  EXPECT_EQ(stats.step_tokens.counts.front(), 8U) << "steps of one token";
  EXPECT_EQ(std::accumulate(stats.block_times.reuse_gap.counts.begin(),
                            stats.block_times.reuse_gap.counts.end(), 0U),
            1U);
}

TEST(EngineTimes, AreThoseOfEachSequence) {
  ManualClock clock;
  ScriptedRunner runner;
  SchedulerConfig config = small();
  config.max_num_seqs = 1;
  Engine engine(config, runner, clock, Logger());
  const TimePoint start = clock.now();
  // After each event the next step is held until the test lets it go.
  const auto holding = [&](Collector& collector) {
    return [&runner, sink = collector.sink()](const TokenEvent& event) {
      runner.hold(true);
      sink(event);
    };
  };
  Collector first;
  Collector second;
  runner.hold(true);
  ASSERT_TRUE(engine.submit(request({1}, 1), holding(first)));
  runner.wait_for_step();
  clock.advance(Seconds(2));
  ASSERT_TRUE(engine.submit(request({2}, 2), holding(second)));
  clock.advance(Seconds(3));
  runner.hold(false);
  first.wait();
  runner.wait_for_step();
  clock.advance(Seconds(4));
  runner.hold(false);
  second.wait_for_token();
  runner.wait_for_step();
  clock.advance(Seconds(1));
  runner.hold(false);
  second.wait();
  EXPECT_EQ(first.times().submitted, start);
  EXPECT_EQ(first.times().started, start);
  EXPECT_EQ(first.times().last_token, start + Seconds(5));
  EXPECT_EQ(second.times().submitted, start + Seconds(2));
  EXPECT_EQ(second.times().started, start + Seconds(5));
  EXPECT_EQ(second.times().first_token, start + Seconds(9));
  EXPECT_EQ(second.times().last_token, start + Seconds(10));
}

}  // namespace
}  // namespace dsm::engine
