// The probe as a value, and the engine that asks it of a model of arithmetic: right, wrong, not a
// number, silent and lost.
#include "worker/engine/probe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <numeric>
#include <thread>

#include "worker/engine/engine.h"
#include "worker/engine/fake_model.h"

namespace dsm::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;

// What rank 0 gives to a step: a token, and how likely it and others were.
Samples gave(TokenId token, std::vector<TokenLogprob> top = {}) {
  Sample sample{.sequence = 0, .tokens = {token}};
  if (!top.empty()) sample.logprobs = {{.chosen = {token, top[0].logprob}, .top = std::move(top)}};
  return {.id = 0, .samples = {std::move(sample)}};
}

TEST(ProbeRun, ComputesThePromptInChunksAndThenTokenByToken) {
  const Probe probe{.prompt = {1, 2, 3, 4, 5}, .answer_tokens = 2};
  ProbeRun run(probe, /*max_batch_tokens=*/3);
  const Row first = run.next()->rows.at(0);
  EXPECT_THAT(first.tokens, ElementsAre(1, 2, 3));
  EXPECT_EQ(first.choices, 0);
  EXPECT_EQ(first.next, 4);
  ASSERT_TRUE(run.take({.id = 0, .samples = {}}));
  const Row second = run.next()->rows.at(0);
  EXPECT_EQ(second.start, 3);
  EXPECT_THAT(second.tokens, ElementsAre(4, 5));
  EXPECT_EQ(second.choices, 1);
  ASSERT_TRUE(run.take(gave(70)));
  const Row third = run.next()->rows.at(0);
  EXPECT_EQ(third.start, 5);
  EXPECT_THAT(third.tokens, ElementsAre(70));
  EXPECT_THAT(third.block_table, ElementsAre(0));
  ASSERT_TRUE(run.take(gave(71)));
  EXPECT_FALSE(run.next());
  ASSERT_THAT(run.answer(), SizeIs(2));
  EXPECT_EQ(run.answer()[1].chosen.token, 71);
}

// The answer 70, 71 to a probe that expects `expected`.
Status judged(std::vector<TokenId> expected, bool exact = true) {
  const Probe probe{
      .prompt = {1}, .answer_tokens = 2, .expected = std::move(expected), .exact = exact};
  ProbeRun run(probe, 8);
  EXPECT_TRUE(run.take(gave(70, {{70, -0.5F}, {9, -1.0F}, {8, -3.0F}})));
  EXPECT_TRUE(run.take(gave(71, {{71, -0.1F}})));
  return run.compare_expected();
}

TEST(ProbeRun, NamesTheTokenThatDiffers) {
  EXPECT_TRUE(judged({}));
  EXPECT_TRUE(judged({70, 71}));
  const auto wrong = judged({70, 9});
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().message,
            "the answer to the probe is wrong: token 2 of 2 is 71, by the checkpoint's probe.json "
            "it is 9");
}

TEST(ProbeRun, TakesATieForRightWhereTheLastDigitsMayDiffer) {
  for (const bool exact : {true, false}) {
    // After another token the text is another one, and says nothing.
    EXPECT_EQ(judged({9, 5}, exact).has_value(), !exact);
    EXPECT_FALSE(judged({8, 71}, exact)) << "too unlikely";
    EXPECT_FALSE(judged({7, 71}, exact)) << "not among the likeliest";
  }
}

TEST(ProbeRun, FindsTheLastBitOfAProbabilityWhereNothingMayChangeIt) {
  for (const bool exact : {true, false}) {
    const Probe probe{.prompt = {1}, .exact = exact};
    ProbeRun first(probe, 8);
    ASSERT_TRUE(first.take(gave(70, {{70, -0.5F}, {9, -1.0F}})));
    EXPECT_TRUE(first.compare_first({}));
    EXPECT_TRUE(first.compare_first(first.answer()));
    ProbeRun second(probe, 8);
    ASSERT_TRUE(second.take(gave(70, {{70, -0.5F}, {9, std::nextafter(-1.0F, 0.0F)}})));
    EXPECT_EQ(second.compare_first(first.answer()).has_value(), !exact);
    ProbeRun other(probe, 8);
    ASSERT_TRUE(other.take(gave(71, {{71, -0.5F}})));
    EXPECT_THAT(other.compare_first(first.answer()).error().message,
                HasSubstr("is 71, by the first epoch of this process it is 70"));
  }
}

TEST(ProbeRun, RefusesWhatIsNoAnswer) {
  const Probe probe{.prompt = {1}};
  Samples strange = gave(70);
  strange.samples[0].all_finite = false;
  EXPECT_THAT(ProbeRun(probe, 8).take(strange).error().message, HasSubstr("not a finite number"));
  EXPECT_THAT(ProbeRun(probe, 8).take({.id = 0, .samples = {}}).error().message,
              HasSubstr("gave none"));
}

TEST(DefaultProbe, FitsIntoAnyContext) {
  for (const int context : {2, 3, 10, 2048}) {
    const Probe probe = default_probe(1536, context);
    EXPECT_GE(probe.prompt.size(), 1U);
    EXPECT_GE(probe.answer_tokens, 1);
    EXPECT_LE(std::ssize(probe.prompt) + probe.answer_tokens, context);
    for (const TokenId token : probe.prompt) EXPECT_LT(token, 1536);
  }
  EXPECT_THAT(default_probe(1536, 2048).prompt, SizeIs(16));
}

constexpr int kCaches = 4;

// A group whose weights can go bad.
class Ranks final : public Runner {
 public:
  Status submit(Batch batch) override {
    const std::lock_guard lock(mutex_);
    if (lost_) return std::unexpected(*lost_);
    pending_ = std::move(batch);
    changed_.notify_all();
    return {};
  }
  Result<std::optional<Samples>> poll(TimePoint deadline) override {
    std::unique_lock lock(mutex_);
    changed_.wait_until(lock, deadline, [&] { return lost_ || (pending_ && !hangs_); });
    if (lost_) return std::unexpected(*lost_);
    if (!pending_ || hangs_) return std::nullopt;
    const bool bad = pending_->rows[0].rank == bad_rank_;
    Samples samples = model_.run(*std::exchange(pending_, std::nullopt));
    for (Sample& sample : samples.samples) {
      sample.all_finite = finite_ && !bad;
      for (TokenId& token : sample.tokens) token += bad_;
    }
    return samples;
  }
  bool recover(TimePoint deadline) override {
    std::unique_lock lock(mutex_);
    // Who is condemned does not come back.
    if (!why_.empty()) {
      changed_.wait_until(lock, deadline, [] { return false; });
      return false;
    }
    if (lost_) model_.forget();
    lost_.reset();
    pending_.reset();
    ++epochs_;
    changed_.notify_all();
    return true;
  }
  void condemn(std::string why) override {
    change([&] { why_ = std::move(why); });
  }

  void go_bad(TokenId by) {
    change([&] { bad_ = by; });
  }
  void go_bad_on(int rank) {
    change([&] { bad_rank_ = rank; });
  }
  void compute_nonsense() {
    change([&] { finite_ = false; });
  }
  void hang(bool hangs) {
    change([&] { hangs_ = hangs; });
  }
  void lose(ErrorKind kind) {
    change([&] { lost_ = Error{.kind = kind, .message = "rank 1 is gone"}; });
  }
  void wait_for_step() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return pending_.has_value(); });
  }
  void wait_for_epoch(int epoch) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return epochs_ >= epoch; });
  }
  std::string wait_for_verdict() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !why_.empty(); });
    return why_;
  }

 private:
  void change(const std::function<void()>& f) {
    const std::lock_guard lock(mutex_);
    f();
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  FakeModel model_{16, 1000, 0, kCaches};
  std::optional<Batch> pending_;
  std::optional<Error> lost_;
  std::string why_;
  TokenId bad_ = 0;
  int bad_rank_ = -1;
  bool finite_ = true;
  bool hangs_ = false;
  int epochs_ = 0;
};

const std::vector<TokenId> kPrompt = {5, 6, 7};

struct ProbedEngine : ::testing::Test {
  void start(std::vector<TokenId> expected = {}, int kv_caches = 1) {
    engine = std::make_unique<Engine>(
        SchedulerConfig{.max_num_seqs = 2,
                        .max_batch_tokens = 64,
                        .max_model_len = 256,
                        .num_blocks = 16,
                        .kv_caches = kv_caches},
        ranks, clock, Logger(),
        Probe{.prompt = kPrompt, .answer_tokens = 3, .expected = std::move(expected)});
  }
  // The tokens of a request, when it has ended.
  std::vector<TokenId> answer_to(std::vector<TokenId> prompt, int max_tokens) {
    GenerateRequest request;
    request.prompt = std::move(prompt);
    request.max_tokens = max_tokens;
    return ask(std::move(request));
  }
  std::vector<TokenId> ask(GenerateRequest request) {
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<TokenId> tokens;
    finished.reset();
    EXPECT_TRUE(engine->submit(std::move(request), [&](const TokenEvent& event) {
      const std::lock_guard lock(mutex);
      tokens.insert(tokens.end(), event.tokens.begin(), event.tokens.end());
      finished = event.finished;
      changed.notify_all();
    }));
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return finished.has_value(); });
    return tokens;
  }
  void wait_until_serving() {
    while (!engine->stats().serving) std::this_thread::yield();
  }

  SystemClock clock;
  Ranks ranks;
  std::optional<FinishReason> finished;
  std::unique_ptr<Engine> engine;
};

TEST_F(ProbedEngine, ServesWhenTheAnswerIsRight) {
  start(FakeModel::answer(kPrompt, 3));
  EXPECT_EQ(answer_to({1, 2}, 20), FakeModel::answer({1, 2}, 20));
}

TEST_F(ProbedEngine, LetsNothingRunAndDoesNotServeBeforeTheAnswer) {
  ranks.hang(true);
  start();
  ranks.wait_for_step();
  std::atomic<bool> began = false;
  GenerateRequest request;
  request.prompt = {1, 2};
  request.max_tokens = 1;
  ASSERT_TRUE(engine->submit(request, [&](const TokenEvent&) { began = true; }));
  const TimePoint before = engine->last_round();
  while (engine->last_round() == before) std::this_thread::yield();
  EXPECT_FALSE(engine->stats().serving);
  EXPECT_EQ(engine->stats().waiting, 1);
  EXPECT_FALSE(began);
  ranks.hang(false);
  wait_until_serving();
  while (!began) std::this_thread::yield();
}

TEST_F(ProbedEngine, CountsTheProbeNowhere) {
  start();
  wait_until_serving();
  const EngineStats stats = engine->stats();
  EXPECT_EQ(stats.steps, 0U);
  EXPECT_EQ(stats.prompt_tokens, 0U);
  EXPECT_EQ(stats.generation_tokens, 0U);
  EXPECT_EQ(stats.prefix_query_tokens, 0U);
  EXPECT_EQ(stats.kv_blocks_used, 0);
  EXPECT_EQ(stats.step_tokens.sum, 0);
  // A request with the same text finds nothing of it, and what it finds after itself is its own.
  std::vector<TokenId> longer(70);
  std::iota(longer.begin(), longer.end(), kPrompt[0]);
  EXPECT_EQ(answer_to(longer, 3), FakeModel::answer(longer, 3));
  EXPECT_EQ(engine->stats().prefix_hit_tokens, 0U);
}

TEST_F(ProbedEngine, CondemnsRanksThatAnswerOtherThanTheCheckpointSays) {
  std::vector<TokenId> expected = FakeModel::answer(kPrompt, 3);
  expected[1] += 1;
  start(expected);
  const std::string why = ranks.wait_for_verdict();
  EXPECT_THAT(why, HasSubstr("token 2 of 3 is " + std::to_string(expected[1] - 1)));
  EXPECT_THAT(why, HasSubstr("probe.json it is " + std::to_string(expected[1])));
  while (engine->stats().last_error.empty()) std::this_thread::yield();
  EXPECT_EQ(engine->stats().last_error, why);
  EXPECT_FALSE(engine->stats().serving);
}

TEST_F(ProbedEngine, CondemnsRanksWhoseLogitsAreNotFinite) {
  ranks.compute_nonsense();
  start();
  EXPECT_THAT(ranks.wait_for_verdict(), HasSubstr("not a finite number"));
}

TEST_F(ProbedEngine, AsksEveryRankThatHasACacheOfItsOwn) {
  ranks.go_bad_on(kCaches - 1);
  start({}, kCaches);
  EXPECT_THAT(ranks.wait_for_verdict(), StartsWith("rank 3: the answer to the probe is wrong"));
}

TEST_F(ProbedEngine, TheUsageIsOfAllCachesTogether) {
  start({}, kCaches);
  wait_until_serving();
  EXPECT_EQ(engine->stats().kv_blocks_total, kCaches * 16);
}

TEST_F(ProbedEngine, CondemnsRanksThatAnswerOtherThanInAnEarlierEpoch) {
  start();
  wait_until_serving();
  ranks.go_bad(1);
  ranks.lose(ErrorKind::kTransient);
  EXPECT_THAT(ranks.wait_for_verdict(), HasSubstr("by the first epoch of this process"));
}

TEST_F(ProbedEngine, CondemnsRanksThatCannotComputeTheProbe) {
  ranks.hang(true);
  start();
  ranks.wait_for_step();
  ranks.lose(ErrorKind::kInternal);
  EXPECT_EQ(ranks.wait_for_verdict(), "the probe failed: rank 1 is gone");
}

TEST_F(ProbedEngine, AsksAgainInTheNextEpochAndGoesOnWithWhatWasRunning) {
  start();
  wait_until_serving();
  ranks.hang(true);
  std::thread fault([&] {
    ranks.wait_for_step();
    ranks.lose(ErrorKind::kTransient);
    ranks.hang(false);
  });
  EXPECT_EQ(answer_to({1, 2}, 150), FakeModel::answer({1, 2}, 150));
  fault.join();
  ranks.wait_for_epoch(2);
}

TEST_F(ProbedEngine, WaitsForAHangingProbeWithItsLoopAliveAndAsksAgainAfterTheLoss) {
  ranks.hang(true);
  start();
  ranks.wait_for_step();
  GenerateRequest late;
  late.prompt = {1};
  late.deadline = clock.now();
  EXPECT_THAT(ask(late), IsEmpty());
  EXPECT_EQ(finished, FinishReason::kDeadline) << "while the probe hangs";
  ranks.lose(ErrorKind::kTransient);  // as the group does when the step's time is over
  ranks.wait_for_epoch(2);
  ranks.hang(false);
  EXPECT_EQ(answer_to({1, 2}, 5), FakeModel::answer({1, 2}, 5));
}

TEST_F(ProbedEngine, StopsInTheMiddleOfAProbe) {
  ranks.hang(true);
  start();
  ranks.wait_for_step();
  engine.reset();
}

}  // namespace
}  // namespace dsm::engine
