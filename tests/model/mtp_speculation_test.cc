// Scheduler, model, sampler and the model's own drafts together, as the worker's executor has them:
// sequences receive the same tokens with drafts and without, in fewer steps.
#include "tests/model/model_fixture.h"
#include "worker/engine/scheduler.h"
#include "worker/model/draft_rows.h"
#include "worker/model/row_sampler.h"

namespace dsm::model {
namespace {

using engine::SpeculationConfig;
using Tokens = std::vector<engine::TokenId>;

struct Outcome {
  std::vector<Tokens> received;
  engine::SpeculationStats speculation;
  int steps = 0;
};

// Greedy and sampled sequences together, their prompts in chunks, with too few blocks for all.
Outcome play(const SpeculationConfig& speculation) {
  const bool drafts = speculation.method == SpeculationConfig::Method::kMtp;
  const auto model = load_tiny({.drafts = drafts});
  const int vocab = model->config().vocab_size;
  engine::Scheduler scheduler({.max_num_seqs = 4,
                               .max_batch_tokens = 64,
                               .max_model_len = 512,
                               .num_blocks = 12,
                               .vocab_size = vocab,
                               .speculation = speculation});
  Outcome outcome;
  for (const GoldenCase& golden : load_goldens()) {
    engine::GenerateRequest request;
    request.prompt = golden.tokens;
    request.prompt.resize(std::min<std::size_t>(request.prompt.size(), 150));
    request.max_tokens = 50;
    request.sampling.seed = outcome.received.size();
    request.sampling.temperature = outcome.received.size() % 3 == 2 ? 0.3F : 0.0F;
    outcome.received.emplace_back();
    scheduler.submit(outcome.received.size(), std::move(request));
  }
  NoComm comm;
  RowSampler sampler(static_cast<std::size_t>(vocab), static_cast<std::size_t>(vocab));
  for (; !scheduler.idle(); ++outcome.steps) {
    const engine::Batch batch = scheduler.schedule();
    const std::span<const float> logits = model->forward(batch, comm);
    engine::Samples samples{.id = batch.id, .samples = {}};
    std::size_t used = 0;
    for (const engine::Row& row : batch.rows) {
      if (row.logits == 0) continue;
      const auto size = static_cast<std::size_t>(row.logits) * static_cast<std::size_t>(vocab);
      samples.samples.push_back(sampler.choose(row, logits.subspan(used, size)));
      used += size;
    }
    if (drafts) {
      const auto rows = draft_rows(batch, samples);
      add_drafts(batch, rows, model->draft(batch, rows, comm), samples);
    }
    for (const engine::Output& o : scheduler.commit(std::move(samples))) {
      Tokens& to = outcome.received[o.sequence - 1];
      to.insert(to.end(), o.tokens.begin(), o.tokens.end());
    }
    scheduler.check_invariants();
  }
  outcome.speculation = scheduler.stats().speculation;
  return outcome;
}

TEST(MtpSpeculation, ChangesNoTokenAndSavesSteps) {
  const Outcome alone = play({});
  for (const Tokens& tokens : alone.received) EXPECT_EQ(tokens.size(), 50U);
  for (const int tokens : {1, 3}) {
    const Outcome drafted = play({.method = SpeculationConfig::Method::kMtp, .tokens = tokens});
    EXPECT_EQ(drafted.received, alone.received);
    EXPECT_LT(drafted.steps, alone.steps);
    const auto& accepted = drafted.speculation.accepted_per_position;
    ASSERT_EQ(accepted.size(), static_cast<std::size_t>(tokens));
    std::printf("%d drafts: %d steps instead of %d, first drafts accepted %lu\n", tokens,
                drafted.steps, alone.steps, static_cast<unsigned long>(accepted[0]));
    EXPECT_GT(accepted[0], 50U);
  }
}

TEST(DraftRows, SayWhichTokensOfARowStand) {
  engine::Batch batch;
  batch.rows.resize(3);
  batch.rows[0].tokens = {5, 6, 7};  // in the middle of a prompt
  batch.rows[0].next = 20;
  batch.rows[1].tokens = {8, 9, 10, 11};  // the last three are drafts
  batch.rows[1].logits = batch.rows[1].choices = 4;
  batch.rows[1].propose = 2;
  batch.rows[2].tokens = {12};
  batch.rows[2].logits = batch.rows[2].choices = 1;
  engine::Samples samples;
  samples.samples.resize(2);
  samples.samples[0].tokens = {9, 30};  // one draft was right
  samples.samples[1].tokens = {31};
  const auto rows = draft_rows(batch, samples);
  ASSERT_EQ(rows.size(), 3U);
  EXPECT_EQ(rows[0].kept, 3);
  EXPECT_EQ(rows[0].next, 20);
  EXPECT_EQ(rows[0].wanted, 0);
  EXPECT_EQ(rows[1].kept, 2);
  EXPECT_EQ(rows[1].next, 30);
  EXPECT_EQ(rows[1].wanted, 2);
  EXPECT_EQ(rows[2].kept, 1);
  EXPECT_EQ(rows[2].next, 31);
  EXPECT_EQ(rows[2].wanted, 0);
  const Tokens drafts = {40, -1};
  add_drafts(batch, rows, drafts, samples);
  EXPECT_EQ(samples.samples[0].drafts, Tokens{40});
  EXPECT_TRUE(samples.samples[1].drafts.empty());
}

}  // namespace
}  // namespace dsm::model
