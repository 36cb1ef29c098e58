// An engine that is told to sleep: what it finishes, what it refuses, and how it comes back.
#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>

#include "worker/engine/engine.h"
#include "worker/engine/fake_model.h"

namespace dsm::engine {
namespace {

// Ranks that compute only in an epoch, with what stands in their cache since it began.
class Ranks final : public Runner {
 public:
  Status submit(Batch batch) override {
    const std::lock_guard lock(mutex_);
    EXPECT_TRUE(formed_) << "a step without an epoch";
    pending_ = std::move(batch);
    changed_.notify_all();
    return {};
  }
  Result<std::optional<Samples>> poll(TimePoint deadline) override {
    std::unique_lock lock(mutex_);
    changed_.wait_until(lock, deadline, [&] { return pending_ && !held_; });
    if (!pending_ || held_) return std::nullopt;
    return model_.run(std::exchange(pending_, std::nullopt).value_or(Batch{}));
  }
  bool recover(TimePoint) override {
    const std::lock_guard lock(mutex_);
    EXPECT_FALSE(asleep_) << "nobody asks ranks that sleep";
    formed_ = true;
    ++epochs_;
    model_.forget();
    return true;
  }
  void condemn(std::string) override {}
  void sleep(bool asleep) override {
    const std::lock_guard lock(mutex_);
    EXPECT_FALSE(pending_) << "a step is under way";
    asleep_ = asleep;
    formed_ = false;
    model_.forget();
    changed_.notify_all();
  }

  void hold(bool held) {
    const std::lock_guard lock(mutex_);
    held_ = held;
    changed_.notify_all();
  }
  void wait_for_step() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return pending_.has_value(); });
  }
  void wait_until_asleep() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return asleep_; });
  }
  bool asleep() const {
    const std::lock_guard lock(mutex_);
    return asleep_;
  }
  int epochs() const {
    const std::lock_guard lock(mutex_);
    return epochs_;
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  FakeModel model_{16};
  std::optional<Batch> pending_;
  bool held_ = false;
  bool formed_ = false;
  bool asleep_ = false;
  int epochs_ = 0;
};

struct Answer {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<TokenId> tokens;
  std::optional<FinishReason> finished;
  std::optional<Error> error;
  std::int32_t cached = 0;

  FinishReason wait() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return finished.has_value(); });
    return finished.value_or(FinishReason::kError);
  }
};

class SleepTest : public testing::Test {
 protected:
  Result<SequenceId> submit(const std::shared_ptr<Answer>& answer, int max_tokens = 8) {
    GenerateRequest request;
    request.prompt = prompt_;
    request.max_tokens = max_tokens;
    return engine_.submit(std::move(request), [answer](const TokenEvent& event) {
      const std::lock_guard lock(answer->mutex);
      answer->tokens.insert(answer->tokens.end(), event.tokens.begin(), event.tokens.end());
      answer->finished = event.finished;
      answer->error = event.error;
      answer->cached = event.cached_prompt_tokens;
      answer->changed.notify_all();
    });
  }
  void expect_answer(int cached = 0) {
    const auto answer = std::make_shared<Answer>();
    ASSERT_TRUE(submit(answer));
    EXPECT_EQ(answer->wait(), FinishReason::kLength);
    EXPECT_EQ(answer->tokens, FakeModel::answer(prompt_, 8));
    EXPECT_EQ(answer->cached, cached);
  }

  std::vector<TokenId> prompt_ = std::vector<TokenId>(kBlockTokens + 3, 5);
  SystemClock clock_;
  Ranks ranks_;
  Engine engine_{{.max_num_seqs = 2,
                  .max_batch_tokens = 128,
                  .max_model_len = 256,
                  .num_blocks = 16,
                  .prefix_caching = true},
                 ranks_,
                 clock_,
                 Logger(),
                 Probe{.prompt = {1, 2, 3}, .answer_tokens = 2}};
};

TEST_F(SleepTest, RefusesRequestsAndAnswersAgainWithAnEmptyCache) {
  expect_answer();
  engine_.sleep(SleepMode::kWait);
  ranks_.wait_until_asleep();
  const auto refused = submit(std::make_shared<Answer>());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::kTransient);
  EXPECT_EQ(refused.error().reason, "asleep");
  EXPECT_GT(refused.error().retry_after_s, 0);
  EXPECT_TRUE(engine_.stats().sleeps);
  EXPECT_EQ(engine_.stats().kv_blocks_used, 0);
  const int epochs = ranks_.epochs();
  engine_.wake();
  expect_answer();
  EXPECT_EQ(ranks_.epochs(), epochs + 1);
  EXPECT_TRUE(engine_.stats().serving);
}

TEST_F(SleepTest, FinishesFirstWhatItHas) {
  ranks_.hold(true);
  const auto answer = std::make_shared<Answer>();
  ASSERT_TRUE(submit(answer));
  ranks_.hold(false);
  engine_.sleep(SleepMode::kWait);
  EXPECT_EQ(answer->wait(), FinishReason::kLength);
  EXPECT_EQ(answer->tokens, FakeModel::answer(prompt_, 8));
  ranks_.wait_until_asleep();
}

TEST_F(SleepTest, EndsWhatItHasWhereItShallNotWait) {
  expect_answer();
  ranks_.hold(true);
  const auto running = std::make_shared<Answer>();
  ASSERT_TRUE(submit(running, 100));
  ranks_.wait_for_step();
  const auto waiting = std::make_shared<Answer>();
  ASSERT_TRUE(submit(waiting, 100));
  engine_.sleep(SleepMode::kAbort);
  engine_.sleep(SleepMode::kWait);  // makes no difference any more
  ranks_.hold(false);
  for (const auto& answer : {running, waiting}) {
    EXPECT_EQ(answer->wait(), FinishReason::kError);
    EXPECT_EQ(answer->error.value_or(Error{}).reason, "asleep");
  }
  ranks_.wait_until_asleep();
  engine_.wake();
  expect_answer();
}

TEST_F(SleepTest, ThatIsWokenBeforeItSleptGoesOn) {
  expect_answer();
  ranks_.hold(true);
  const auto answer = std::make_shared<Answer>();
  ASSERT_TRUE(submit(answer));
  ranks_.wait_for_step();
  engine_.sleep(SleepMode::kWait);
  engine_.wake();
  ranks_.hold(false);
  EXPECT_EQ(answer->wait(), FinishReason::kLength);
  expect_answer(/*cached=*/kBlockTokens);
  EXPECT_EQ(ranks_.epochs(), 1);
  EXPECT_FALSE(ranks_.asleep());
}

TEST_F(SleepTest, StopsWhileItSleeps) {
  engine_.sleep(SleepMode::kWait);
  ranks_.wait_until_asleep();
  EXPECT_TRUE(ranks_.asleep());
}

}  // namespace
}  // namespace dsm::engine
