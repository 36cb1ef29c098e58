// The scheduler, the real model and the sampler together: with guesses a sequence receives the same
// tokens and the same log probabilities, to the bit, as one by one; whatever shifts its choices.
#include <map>
#include <optional>

#include "tests/model/model_fixture.h"
#include "worker/engine/scheduler.h"
#include "worker/model/row_sampler.h"

namespace dsm::model {
namespace {

using engine::GenerateRequest;
using engine::SpeculationConfig;
using engine::TokenId;

// Even tokens at even places, odd ones at odd places.
class Parity final : public engine::TokenConstraint {
 public:
  bool fill_mask(std::span<std::uint32_t> mask) override {
    std::ranges::fill(mask, place_ % 2 == 0 ? 0x55555555U : 0xaaaaaaaaU);
    return true;
  }
  bool accept(TokenId token) override {
    if (token % 2 != place_ % 2) return false;
    ++place_;
    return true;
  }
  void rollback(int tokens) override { place_ -= tokens; }

 private:
  int place_ = 0;
};

struct Received {
  std::vector<TokenId> tokens;
  std::vector<engine::PositionLogprobs> logprobs;
  std::vector<engine::PositionLogprobs> prompt_logprobs;
  std::optional<engine::FinishReason> finished;
  bool operator==(const Received&) const = default;
};

struct Outcome {
  std::vector<Received> received;
  engine::SchedulerStats stats;
  int steps = 0;
};

std::vector<GenerateRequest> requests() {
  std::vector<GenerateRequest> all;
  for (const GoldenCase& golden : load_goldens()) {
    GenerateRequest r;
    r.prompt = golden.tokens;
    r.prompt.resize(std::min<std::size_t>(r.prompt.size(), 150));
    r.max_tokens = 60;
    r.sampling.logprobs = 2;
    r.sampling.seed = all.size();
    switch (all.size() % 6) {
      case 0:
        break;
      case 1:
        r.sampling.temperature = 0.8F;
        r.sampling.top_p = 0.9F;
        break;
      case 2:
        r.sampling.repetition_penalty = 1.2F;
        r.sampling.presence_penalty = 0.5F;
        r.sampling.temperature = 1;
        break;
      case 3:
        r.sampling.frequency_penalty = 0.3F;
        r.sampling.min_p = 0.05F;
        r.sampling.temperature = 0.6F;
        r.stop_tokens = {1};
        r.min_tokens = 20;
        break;
      case 4:
        r.constraint = std::make_shared<Parity>();
        r.sampling.temperature = 0.7F;
        break;
      default:
        r.prompt_logprobs = 1;
        r.sampling.logit_bias = {{.token = 5, .bias = 3}};
        r.sampling.top_k = 20;
        r.sampling.temperature = 1;
        break;
    }
    all.push_back(std::move(r));
  }
  return all;
}

// All requests together; `known`: what they receive, from which a proposing model is played that is
// wrong at each fourth place.
Outcome play(RankModel& model, const SpeculationConfig& speculation, int max_batch_tokens,
             const std::vector<Received>& known) {
  const int vocab = model.config().vocab_size;
  engine::Scheduler scheduler({.max_num_seqs = 4,
                               .max_batch_tokens = max_batch_tokens,
                               .max_model_len = 512,
                               .num_blocks = 12,
                               .vocab_size = vocab,
                               .speculation = speculation});
  const auto all = requests();
  Outcome outcome;
  outcome.received.resize(all.size());
  for (std::size_t i = 0; i < all.size(); ++i) scheduler.submit(i + 1, all[i]);
  NoComm comm;
  RowSampler sampler(static_cast<std::size_t>(vocab), static_cast<std::size_t>(vocab));
  for (; !scheduler.idle(); ++outcome.steps) {
    const engine::Batch batch = scheduler.schedule();
    const std::span<const float> logits = model.forward(batch, comm);
    engine::Samples samples{.id = batch.id, .samples = {}};
    std::size_t used = 0;
    for (const engine::Row& row : batch.rows) {
      if (row.logits == 0) continue;
      const auto size = static_cast<std::size_t>(row.logits) * static_cast<std::size_t>(vocab);
      engine::Sample sample = sampler.choose(row, logits.subspan(used, size));
      used += size;
      const std::size_t which = row.sequence - 1;
      const auto place = static_cast<std::size_t>(row.first_choice()) - all[which].prompt.size() +
                         sample.tokens.size();
      for (std::size_t p = place; p < place + static_cast<std::size_t>(row.propose); ++p) {
        if (p >= known.at(which).tokens.size()) break;
        const TokenId right = known[which].tokens[p];
        sample.drafts.push_back(p % 4 == 3 ? (right + 1) % vocab : right);
      }
      samples.samples.push_back(std::move(sample));
    }
    for (const engine::Output& o : scheduler.commit(std::move(samples))) {
      Received& r = outcome.received[o.sequence - 1];
      r.tokens.insert(r.tokens.end(), o.tokens.begin(), o.tokens.end());
      r.logprobs.insert(r.logprobs.end(), o.logprobs.begin(), o.logprobs.end());
      r.prompt_logprobs.insert(r.prompt_logprobs.end(), o.prompt_logprobs.begin(),
                               o.prompt_logprobs.end());
      r.finished = o.finished;
    }
    scheduler.check_invariants();
  }
  outcome.stats = scheduler.stats();
  return outcome;
}

TEST(Speculation, ChangesNoTokenAndNoLogprobOfTheRealModel) {
  const auto model = load_tiny({});
  using Method = SpeculationConfig::Method;
  const Outcome alone = play(*model, {}, 64, {});
  ASSERT_GE(alone.received.size(), 6U) << "each kind of request";
  for (const Received& r : alone.received) {
    EXPECT_FALSE(r.tokens.empty());
    EXPECT_EQ(r.logprobs.size(), r.tokens.size());
    EXPECT_TRUE(r.finished);
  }
  struct Way {
    int max_batch_tokens;
    int tokens;
  };
  for (const Way& way : {Way{16, 3}, Way{64, 1}, Way{64, 8}, Way{200, 3}}) {
    SCOPED_TRACE(way.tokens);
    const Outcome ngram =
        play(*model, {.method = Method::kNgram, .tokens = way.tokens}, way.max_batch_tokens, {});
    EXPECT_EQ(ngram.received, alone.received);
    EXPECT_GT(ngram.stats.speculation.accepted_tokens, 0U);
    const Outcome proposed = play(*model, {.method = Method::kMtp, .tokens = way.tokens},
                                  way.max_batch_tokens, alone.received);
    EXPECT_EQ(proposed.received, alone.received);
    EXPECT_GT(proposed.stats.speculation.accepted_tokens, 100U);
    if (way.max_batch_tokens >= 64) {
      EXPECT_LT(proposed.steps, alone.steps);
    }
  }
}

}  // namespace
}  // namespace dsm::model
