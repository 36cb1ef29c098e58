// Tokens that the device chooses in a step are those that the host chooses from the same step's
// logits, in batches of rows of both kinds, on the device that is there and on two ranks of it.
#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include "tests/model/model_fixture.h"
#include "worker/comm/thread_comm.h"
#include "worker/device/devices.h"
#include "worker/model/row_choices.h"
#include "worker/model/row_sampler.h"

namespace dsm::model {
namespace {

using engine::Batch;
using engine::Row;
using engine::TokenId;

constexpr const char* kModel = "tests/goldens/families/llama";
constexpr std::size_t kPast = 5;

std::size_t vocab_of(const RankModel& model) {
  return static_cast<std::size_t>(model.config().vocab_size);
}

std::vector<TokenId> text_of(std::size_t sequence, std::size_t length) {
  std::vector<TokenId> tokens;
  tokens.reserve(length);
  for (std::size_t i = 0; i < length; ++i) {
    tokens.push_back(static_cast<TokenId>((sequence * 31 + i * 7 + 1) % 90));
  }
  return tokens;
}

// One token of a sequence, which is chosen after.
Row decoding(std::size_t sequence, engine::SamplingParams sampling) {
  Row row = make_row(text_of(sequence, kPast + 1), kPast, kPast + 1,
                     blocks_for(kPast + 1, static_cast<engine::BlockId>(sequence)));
  row.sequence = sequence;
  row.choices = 1;
  row.sampling = std::move(sampling);
  row.sampling.seed = sequence + 100;
  return row;
}

// The pasts of decoding rows.
Batch pasts(std::size_t sequences) {
  Batch batch{1, {}};
  for (std::size_t s = 0; s < sequences; ++s) {
    Row row =
        make_row(text_of(s, kPast), 0, kPast, blocks_for(kPast, static_cast<engine::BlockId>(s)));
    row.logits = 0;
    batch.rows.push_back(std::move(row));
  }
  return batch;
}

// Rows of which the device chooses for some; their parameters differ from step to step.
Batch mixed(int step) {
  const float warmer = 0.1F * static_cast<float>(step);
  Batch batch{2, {}};
  batch.rows.push_back(decoding(0, {}));
  batch.rows.push_back(decoding(1, {.temperature = 0.8F + warmer}));
  batch.rows.push_back(decoding(2, {.temperature = 1, .logprobs = 2}));
  batch.rows.push_back(decoding(3, {.temperature = 0.7F + warmer, .top_k = 9, .top_p = 0.9F}));
  batch.rows.push_back(decoding(4, {.temperature = 1, .presence_penalty = 1}));
  batch.rows.back().context.history = {4, 5, 6};
  batch.rows.push_back(decoding(5, {.temperature = 2, .min_p = 0.02F}));
  return batch;
}

// What the host chooses from logits [n, vocab] of the batch.
std::vector<engine::Sample> chosen_by_the_host(const Batch& batch, std::span<const float> logits,
                                               std::size_t vocab) {
  RowSampler sampler(vocab, vocab);
  std::vector<engine::Sample> samples;
  for (const Row& row : batch.rows) {
    const std::size_t size = static_cast<std::size_t>(row.logits) * vocab;
    samples.push_back(sampler.choose(row, logits.first(size)));
    logits = logits.subspan(size);
  }
  return samples;
}

// Rank 0's outputs are what the host would choose, and the other rows' logits.
void expect_same(const Batch& batch, StepOutputs outputs, const std::vector<float>& logits,
                 std::size_t vocab) {
  const auto wanted = chosen_by_the_host(batch, logits, vocab);
  std::span<const float> all = logits;
  for (std::size_t i = 0; i < batch.rows.size(); ++i) {
    const auto positions = static_cast<std::size_t>(batch.rows[i].logits);
    const std::size_t size = positions * vocab;
    if (chosen_on_device(batch.rows[i])) {
      const auto sample = sample_of(batch.rows[i], outputs.tokens.first(positions));
      EXPECT_EQ(sample.tokens, wanted[i].tokens) << "row " << i;
      EXPECT_EQ(sample.sequence, wanted[i].sequence);
    } else {
      ASSERT_GE(outputs.logits.size(), size);
      EXPECT_TRUE(std::ranges::equal(outputs.logits.first(size), all.first(size))) << "row " << i;
      outputs.logits = outputs.logits.subspan(size);
    }
    outputs.tokens = outputs.tokens.subspan(positions);
    all = all.subspan(size);
  }
  EXPECT_TRUE(outputs.tokens.empty() && outputs.logits.empty());
}

RankSpec here() {
  return {.device = *device::find_device("auto")};
}

TEST(ChoiceOnDevice, IsTheHostsInMixedBatchesAndRepeatedSteps) {
  const auto model = load_checkpoint(kModel, here());
  NoComm comm;
  model->forward(pasts(6), comm);
  for (int step = 0; step < 4; ++step) {
    const Batch batch = mixed(step);
    const auto logits = model->forward(batch, comm);
    const std::vector<float> kept(logits.begin(), logits.end());
    expect_same(batch, model->choose(batch, comm), kept, vocab_of(*model));
  }
}

// A row whose drafts are verified, and a prompt's tail beside it.
TEST(ChoiceOnDevice, FollowsDraftsAsFarAsTheyAreRight) {
  const auto model = load_checkpoint(kModel, here());
  NoComm comm;
  const std::size_t vocab = vocab_of(*model);
  std::vector<TokenId> tokens = text_of(0, 6);
  const auto row_of = [&] {
    Row row = make_row(tokens, 0, tokens.size(), blocks_for(tokens.size()));
    row.logits = row.choices = static_cast<std::int32_t>(tokens.size()) - 5;
    return row;
  };
  // The right draft, then a wrong one.
  const Batch first{1, {row_of()}};
  const StepOutputs next = model->choose(first, comm);
  tokens.push_back(next.tokens[0]);
  tokens.push_back((next.tokens[0] + 1) % 90);
  Batch batch{2, {row_of(), make_row(text_of(1, 3), 0, 3, {7})}};
  batch.rows[1].choices = 1;
  const auto logits = model->forward(batch, comm);
  const std::vector<float> kept(logits.begin(), logits.end());
  expect_same(batch, model->choose(batch, comm), kept, vocab);
  const auto sample = sample_of(batch.rows[0], model->choose(batch, comm).tokens.first(3));
  EXPECT_GE(sample.tokens.size(), 2U) << "the first draft is what is chosen";
}

// More positions than the head has logits of at a time.
TEST(ChoiceOnDevice, OfManyPositionsAtOnce) {
  const auto model = load_checkpoint(kModel, here());
  NoComm comm;
  const auto tokens = text_of(0, 270);
  Row drafts = make_row(tokens, 0, tokens.size(), blocks_for(tokens.size()));
  drafts.logits = drafts.choices = 265;
  Row told = decoding(9, {.logprobs = 0});
  told.start = 0;
  Batch batch{1, {drafts, told}};
  const auto logits = model->forward(batch, comm);
  const std::vector<float> kept(logits.begin(), logits.end());
  const StepOutputs outputs = model->choose(batch, comm);
  expect_same(batch, outputs, kept, vocab_of(*model));
  for (std::size_t i = 0; i < 265; ++i) {
    const auto row = std::span(kept).subspan(i * vocab_of(*model), vocab_of(*model));
    EXPECT_EQ(outputs.tokens[i], std::ranges::max_element(row) - row.begin()) << i;
  }
}

TEST(ChoiceOnDevice, TwoRanksChooseFromTheWholeVocabulary) {
  auto comms = comm::make_thread_communicators(2);
  std::vector<std::thread> ranks;
  ranks.reserve(2);
  for (int rank = 0; rank < 2; ++rank) {
    ranks.emplace_back([&, rank] {
      RankSpec own = here();
      own.rank = rank;
      own.size = 2;
      const auto model = load_checkpoint(kModel, own);
      comm::Communicator& comm = *comms[static_cast<std::size_t>(rank)];
      model->join(comm);
      model->forward(pasts(6), comm);
      const Batch batch = mixed(0);
      const auto logits = model->forward(batch, comm);
      const std::vector<float> kept(logits.begin(), logits.end());
      const StepOutputs outputs = model->choose(batch, comm);
      if (rank == 0) {
        expect_same(batch, outputs, kept, vocab_of(*model));
      } else {
        EXPECT_TRUE(outputs.tokens.empty() && outputs.logits.empty());
      }
    });
  }
  for (std::thread& rank : ranks) rank.join();
}

// Ids behind the tokenizer's are never chosen.
TEST(ChoiceOnDevice, NeverOfPadding) {
  RankSpec spec = here();
  spec.sampled_vocab = 3;
  const auto model = load_checkpoint(kModel, spec);
  NoComm comm;
  model->forward(pasts(6), comm);
  Batch batch{2, {}};
  for (std::size_t s = 0; s < 6; ++s) {
    batch.rows.push_back(decoding(s, {.temperature = s < 2 ? 0.0F : 5.0F}));
  }
  const auto logits = model->forward(batch, comm);
  const std::vector<float> kept(logits.begin(), logits.end());
  const StepOutputs outputs = model->choose(batch, comm);
  for (const TokenId token : outputs.tokens) EXPECT_LT(token, 3);
  expect_same(batch, outputs, kept, vocab_of(*model));
}

}  // namespace
}  // namespace dsm::model
