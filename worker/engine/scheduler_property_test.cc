// Random histories: submit, cancel, deadlines, priorities, full caches, shared prefixes, drafts,
// lost groups and failed steps in any order. After each step the scheduler's own invariants hold,
// the budget was kept, and each sequence has received exactly the tokens it would have received
// alone, one by one.
//
// Built twice: with a number of steps for every day, and with a million.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "worker/engine/fake_model.h"
#include "worker/engine/scheduler.h"

namespace dsm::engine {
namespace {

#ifdef DSM_MANY_STEPS
constexpr int kHistories = 2000;
#else
constexpr int kHistories = 80;
#endif
constexpr int kSteps = 500;  // of a history, before what is left runs to its end

constexpr int kVocab = 50;
constexpr int kWords = (kVocab + 31) / 32;
constexpr TokenId kStopToken = 7;

// Where a token of an answer may stand; each fifth place is free.
bool is_free(std::size_t place) {
  return place % 5 == 4;
}
bool may_come(std::size_t place, TokenId token) {
  return is_free(place) || (static_cast<std::size_t>(token) + place) % 3 != 0;
}
std::vector<std::uint32_t> mask_at(std::size_t place) {
  std::vector<std::uint32_t> mask(kWords, 0);
  for (TokenId t = 0; t < kVocab; ++t) {
    if (may_come(place, t)) mask[static_cast<std::size_t>(t) / 32] |= 1U << (t % 32);
  }
  return mask;
}

class Places final : public TokenConstraint {
 public:
  bool fill_mask(std::span<std::uint32_t> mask) override {
    if (is_free(accepted_.size())) return false;
    std::ranges::copy(mask_at(accepted_.size()), mask.begin());
    return true;
  }
  bool accept(TokenId token) override {
    if (!may_come(accepted_.size(), token)) return false;
    accepted_.push_back(token);
    return true;
  }
  void rollback(int tokens) override {
    accepted_.resize(accepted_.size() - static_cast<std::size_t>(tokens));
  }
  const std::vector<TokenId>& accepted() const { return accepted_; }

 private:
  std::vector<TokenId> accepted_;
};

class History {
 public:
  explicit History(std::uint32_t seed)
      : random_(seed),
        config_(draw_config()),
        echo_(draw(0, 2) * 3),
        scheduler_(config_),
        model_(config_.num_blocks, kVocab, echo_, config_.kv_caches) {}

  void run(int steps) {
    for (int i = 0; i < steps && !testing::Test::HasFatalFailure(); ++i) {
      if (one_in(3) && live_.size() < 12) {
        // Sometimes several at once, as for several answers to one prompt.
        const int answers = one_in(6) ? draw(2, 4) : 1;
        submit(answers);
      }
      if (one_in(40) && !live_.empty()) cancel_any();
      step();
    }
    // Without newcomers everything ends: nothing waits for ever.
    int rounds = 0;
    while (!scheduler_.idle() && !testing::Test::HasFatalFailure()) {
      step();
      ASSERT_LT(++rounds, 20000) << "sequences starve";
    }
    EXPECT_TRUE(live_.empty());
    EXPECT_EQ(scheduler_.stats().blocks_used, 0);
    EXPECT_EQ(scheduler_.stats().waiting_tokens, 0);
  }

  SchedulerStats stats() const { return scheduler_.stats(); }
  int finished(FinishReason reason) const {
    const auto it = finished_.find(reason);
    return it == finished_.end() ? 0 : it->second;
  }
  int steps() const { return steps_; }

 private:
  struct Live {
    GenerateRequest request;
    std::shared_ptr<Places> constraint;
    std::vector<TokenId> text;  // prompt and what was received
    std::uint64_t hash = 0;     // of `text`
    std::size_t prompt_size = 0;
    bool first_output = true;
    bool cancelled = false;

    std::size_t generated() const { return text.size() - prompt_size; }
  };

  int draw(int low, int high) { return std::uniform_int_distribution(low, high)(random_); }
  bool one_in(int n) { return draw(1, n) == 1; }

  SchedulerConfig draw_config() {
    SchedulerConfig c;
    c.max_num_seqs = draw(1, 6);
    c.max_batch_tokens = draw(c.max_num_seqs, 150);
    c.max_model_len = draw(20, 400);
    c.num_blocks = draw(1, 12);
    c.kv_caches = one_in(3) ? draw(2, 4) : 1;
    c.prefix_caching = !one_in(4);
    c.vocab_size = kVocab;
    c.speculation.method = static_cast<SpeculationConfig::Method>(draw(0, 2));
    if (c.speculation.method != SpeculationConfig::Method::kNone) {
      c.speculation.tokens = draw(1, 5);
    }
    return c;
  }

  GenerateRequest draw_request() {
    GenerateRequest r;
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
    r.min_tokens = one_in(4) ? draw(0, r.max_tokens) : 0;
    r.cache_salt = one_in(5) ? "other" : "";
    r.priority = one_in(3) ? draw(-2, 2) : 0;
    if (one_in(8)) r.deadline = now_ + Millis(draw(0, 60'000));
    if (one_in(4)) r.sampling.presence_penalty = 1;
    if (one_in(4)) r.sampling.repetition_penalty = 1.1F;
    if (one_in(3)) r.sampling.logprobs = 0;
    if (one_in(6)) r.prompt_logprobs = 0;
    return r;
  }

  void submit(int answers) {
    const GenerateRequest request = draw_request();
    const bool constrained = one_in(4);
    for (int i = 0; i < answers; ++i) {
      Live live{.request = request, .constraint = nullptr, .text = request.prompt};
      if (constrained) {
        live.constraint = std::make_shared<Places>();
        live.request.constraint = live.constraint;
      }
      ASSERT_TRUE(admissible(config_, live.request));
      live.hash = FakeModel::hash_of(live.text);
      live.prompt_size = live.text.size();
      scheduler_.submit(++last_id_, live.request, now_);
      live_.emplace(last_id_, std::move(live));
    }
  }

  void cancel_any() {
    auto it = live_.begin();
    std::advance(it, draw(0, static_cast<int>(live_.size()) - 1));
    it->second.cancelled = true;
    if (const auto output = scheduler_.cancel(it->first)) take({*output}, false);
  }

  void expire() {
    take(scheduler_.expire(now_), false);
    for (const auto& [id, live] : live_) {
      ASSERT_TRUE(scheduler_.step_in_flight() || !live.request.deadline ||
                  *live.request.deadline > now_)
          << "it is out of time and still in work";
    }
  }

  void step() {
    now_ += Millis(draw(0, 400));
    expire();
    const Batch batch = scheduler_.schedule();
    if (batch.rows.empty()) {
      ASSERT_TRUE(live_.empty());
      return;
    }
    ++steps_;
    check(batch);
    if (one_in(30) && !live_.empty()) cancel_any();  // while the step is under way
    if (one_in(30)) expire();
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
    ASSERT_TRUE(std::ranges::is_sorted(batch.rows, {}, &Row::rank));
    std::map<std::pair<int, BlockId>, SequenceId> written;
    for (const Row& row : batch.rows) {
      check_row(row);
      const int end = row.start + static_cast<int>(row.tokens.size());
      for (int block = row.start / kBlockTokens; block <= (end - 1) / kBlockTokens; ++block) {
        const BlockId id = row.block_table[static_cast<std::size_t>(block)];
        ASSERT_TRUE(written.emplace(std::pair(row.rank, id), row.sequence).second)
            << "two rows write to one block";
      }
    }
    for (const Row& row : batch.rows) {
      for (const BlockId id : row.block_table) {
        const auto it = written.find({row.rank, id});
        ASSERT_TRUE(it == written.end() || it->second == row.sequence)
            << "a block is read by one row while another writes to it";
      }
    }
  }

  void check_row(const Row& row) {
    const Live& live = live_.at(row.sequence);
    const auto size = static_cast<int>(live.text.size());
    const auto drafts = static_cast<int>(row.drafts().size());
    const int end = row.start + static_cast<int>(row.tokens.size());
    ASSERT_FALSE(row.tokens.empty());
    ASSERT_EQ(static_cast<int>(row.block_table.size()), (end + kBlockTokens - 1) / kBlockTokens);
    ASSERT_LE(end - drafts, size);
    ASSERT_TRUE(
        std::equal(row.tokens.begin(), row.tokens.end() - drafts, live.text.begin() + row.start));
    ASSERT_EQ(row.choices, end - drafts == size ? 1 + drafts : 0);
    ASSERT_LE(drafts, config_.speculation.tokens);
    ASSERT_LE(static_cast<int>(live.generated()) + row.choices, live.request.max_tokens);
    ASSERT_LE(size + row.choices, config_.context_limit());
  }

  // What the sequence receives next when it is alone and computed one by one.
  TokenId expected(const Live& live) const {
    const GenerateRequest& r = live.request;
    std::vector<TokenId> history;
    std::int32_t generated_from = 0;
    const auto prompt = static_cast<std::ptrdiff_t>(live.prompt_size);
    if (r.sampling.repetition_penalty != 1) {
      history = live.text;
      generated_from = static_cast<std::int32_t>(prompt);
    } else if (r.sampling.presence_penalty != 0) {
      history.assign(live.text.begin() + prompt, live.text.end());
    }
    const std::size_t place = live.generated();
    const auto mask =
        live.constraint && !is_free(place) ? mask_at(place) : std::vector<std::uint32_t>();
    const bool banned = static_cast<int>(place) < r.min_tokens;
    return FakeModel::choose(
        live.hash, live.text, kVocab, echo_,
        {.history = history,
         .generated_from = generated_from,
         .mask = mask,
         .banned = banned ? std::span(r.stop_tokens) : std::span<const TokenId>()});
  }

  void take(const std::vector<Output>& outputs, bool broken) {
    for (const Output& o : outputs) {
      const auto it = live_.find(o.sequence);
      ASSERT_NE(it, live_.end());
      Live& live = it->second;
      ASSERT_FALSE(broken && !o.tokens.empty());
      ASSERT_EQ(o.logprobs.size(), live.request.sampling.logprobs >= 0 ? o.tokens.size() : 0U);
      if (std::exchange(live.first_output, false) && !o.tokens.empty()) {
        check_prompt_logprobs(live, o);
      } else {
        ASSERT_TRUE(o.prompt_logprobs.empty() || o.tokens.empty()) << "they come once";
      }
      for (std::size_t i = 0; i < o.tokens.size(); ++i) {
        ASSERT_EQ(o.tokens[i], expected(live)) << "scheduling changed a token";
        if (!o.logprobs.empty()) {
          ASSERT_EQ(o.logprobs[i], FakeModel::logprobs(live.hash, o.tokens[i]));
        }
        live.text.push_back(o.tokens[i]);
        live.hash = FakeModel::roll(live.hash, o.tokens[i]);
      }
      if (live.constraint) {
        ASSERT_TRUE(std::ranges::equal(live.constraint->accepted(),
                                       std::span(live.text).subspan(live.prompt_size)))
            << "the constraint has another text";
      }
      if (o.finished) {
        check_end(live, *o.finished, broken);
        ++finished_[*o.finished];
        live_.erase(it);
      }
    }
  }

  void check_prompt_logprobs(const Live& live, const Output& o) {
    if (live.request.prompt_logprobs < 0) {
      ASSERT_TRUE(o.prompt_logprobs.empty());
      return;
    }
    ASSERT_EQ(o.prompt_logprobs.size(), live.prompt_size - 1);
    std::uint64_t hash = FakeModel::kStart;
    for (std::size_t i = 0; i < o.prompt_logprobs.size(); ++i) {
      hash = FakeModel::roll(hash, live.text[i]);
      ASSERT_EQ(o.prompt_logprobs[i], FakeModel::logprobs(hash, live.text[i + 1]));
    }
  }

  void check_end(const Live& live, FinishReason reason, bool broken) {
    switch (reason) {
      case FinishReason::kCancelled:
        ASSERT_TRUE(live.cancelled);
        break;
      case FinishReason::kDeadline:
        ASSERT_TRUE(live.request.deadline && *live.request.deadline <= now_);
        break;
      case FinishReason::kError:
        ASSERT_TRUE(broken);
        break;
      case FinishReason::kStop:
        ASSERT_EQ(expected(live), kStopToken);
        ASSERT_FALSE(live.request.ignore_eos);
        ASSERT_TRUE(static_cast<int>(live.generated()) >= live.request.min_tokens);
        break;
      case FinishReason::kLength:
        ASSERT_TRUE(static_cast<int>(live.generated()) == live.request.max_tokens ||
                    static_cast<int>(live.text.size()) == config_.context_limit());
        break;
    }
  }

  std::mt19937 random_;
  TimePoint now_;
  SchedulerConfig config_;
  int echo_;
  Scheduler scheduler_;
  FakeModel model_;
  std::map<SequenceId, Live> live_;
  SequenceId last_id_ = 0;
  std::map<FinishReason, int> finished_;
  int steps_ = 0;
};

TEST(SchedulerProperty, TokensAndBlocksAreRightInAnyHistory) {
  SchedulerStats sum;
  std::map<FinishReason, int> finished;
  int steps = 0;
  for (std::uint32_t seed = 1; seed <= kHistories; ++seed) {
    SCOPED_TRACE(seed);
    History history(seed);
    history.run(kSteps);
    if (HasFatalFailure()) return;
    const SchedulerStats stats = history.stats();
    sum.preemptions += stats.preemptions;
    sum.prefix_hit_tokens += stats.prefix_hit_tokens;
    sum.speculation.drafts += stats.speculation.drafts;
    sum.speculation.draft_tokens += stats.speculation.draft_tokens;
    sum.speculation.accepted_tokens += stats.speculation.accepted_tokens;
    steps += history.steps();
    for (const auto reason : {FinishReason::kStop, FinishReason::kLength, FinishReason::kCancelled,
                              FinishReason::kDeadline, FinishReason::kError}) {
      finished[reason] += history.finished(reason);
    }
  }
  // The histories do reach what they are meant to reach.
  const auto scaled = [](int of_eighty) { return of_eighty * kHistories / 80; };
  EXPECT_GE(steps, scaled(40'000));
  EXPECT_GT(sum.preemptions, static_cast<std::uint64_t>(scaled(50)));
  EXPECT_GT(sum.prefix_hit_tokens, static_cast<std::uint64_t>(scaled(5000)));
  EXPECT_GT(sum.speculation.accepted_tokens, static_cast<std::uint64_t>(scaled(2000)));
  EXPECT_LT(sum.speculation.accepted_tokens, sum.speculation.draft_tokens);
  EXPECT_GT(finished[FinishReason::kStop], scaled(20));
  EXPECT_GT(finished[FinishReason::kLength], scaled(400));
  EXPECT_GT(finished[FinishReason::kCancelled], scaled(200));
  EXPECT_GT(finished[FinishReason::kDeadline], scaled(50));
  EXPECT_GT(finished[FinishReason::kError], scaled(10));
  RecordProperty("steps", steps);
}

// The same calls give the same batches: what a fresh scheduler decides does not depend on its
// random hash key or on addresses.
TEST(SchedulerProperty, DecisionsRepeatExactly) {
  const SchedulerConfig config{
      .max_num_seqs = 4,
      .max_batch_tokens = 64,
      .num_blocks = 8,
      .speculation = {.method = SpeculationConfig::Method::kNgram, .tokens = 3}};
  const auto play = [&] {
    Scheduler scheduler(config);
    FakeModel model(config.num_blocks, 1000, 5);
    std::vector<Batch> batches;
    for (SequenceId id = 1; id <= 20; ++id) {
      GenerateRequest r;
      r.prompt.assign(static_cast<std::size_t>(20 * id % 300 + 1), static_cast<TokenId>(id % 3));
      r.max_tokens = 40;
      r.priority = static_cast<int>(id % 2);
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
