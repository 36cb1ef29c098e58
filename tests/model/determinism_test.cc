// The model against itself: the same row has the same bits however it is run. One prompt longer
// than YaRN's original context is the reference, computed whole, alone, by one rank with one
// thread.
#include <exception>
#include <optional>
#include <thread>

#include "tests/model/model_fixture.h"
#include "worker/comm/thread_comm.h"

namespace dsm::model {
namespace {

using Logits = std::vector<float>;

// The prompt that most tests use, with its logits at every position.
struct Reference {
  std::vector<engine::TokenId> tokens;
  Logits logits;
  std::size_t vocab;

  Logits last() const { return {logits.end() - static_cast<std::ptrdiff_t>(vocab), logits.end()}; }
};

class Determinism : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    model_ = load_tiny({});
    Reference reference;
    reference.tokens = prompt(600, 1);
    reference.vocab = static_cast<std::size_t>(model_->config().vocab_size);
    reference.logits = all_logits(*model_, reference.tokens);
    reference_ = std::move(reference);
  }
  static void TearDownTestSuite() {
    model_.reset();
    reference_.reset();
  }

  // Tokens of the evaluation's language, another text for each `which`.
  static std::vector<engine::TokenId> prompt(std::size_t length, std::size_t which) {
    std::vector<engine::TokenId> all;
    for (const auto& golden : load_goldens())
      all.insert(all.end(), golden.tokens.begin(), golden.tokens.end());
    std::rotate(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(which * 97 % all.size()),
                all.end());
    all.resize(length);
    return all;
  }

  static Logits all_logits(RankModel& model, const std::vector<engine::TokenId>& tokens) {
    NoComm comm;
    const auto span = model.forward_all(
        {1, {make_row(tokens, 0, tokens.size(), blocks_for(tokens.size()))}}, comm);
    return {span.begin(), span.end()};
  }

  // Feeds the tokens in chunks that end at `cuts`, logits of every position.
  static Logits chunked(RankModel& model, comm::Communicator& comm,
                        const std::vector<engine::TokenId>& tokens, std::vector<std::size_t> cuts,
                        const std::vector<engine::BlockId>& table) {
    Logits logits;
    std::size_t begin = 0;
    cuts.push_back(tokens.size());
    for (const auto cut : cuts) {
      const auto span = model.forward_all({1, {make_row(tokens, begin, cut, table)}}, comm);
      logits.insert(logits.end(), span.begin(), span.end());
      begin = cut;
    }
    return logits;
  }

  static std::unique_ptr<RankModel> model_;
  static std::optional<Reference> reference_;
};
std::unique_ptr<RankModel> Determinism::model_;
std::optional<Reference> Determinism::reference_;

TEST_F(Determinism, ChunksOfAPromptGiveTheBitsOfTheWhole) {
  NoComm comm;
  const auto& r = *reference_;
  const auto table = blocks_for(r.tokens.size());
  expect_same_bits(chunked(*model_, comm, r.tokens, {1, 2, 3, 66, 128, 500, 599}, table), r.logits);
  expect_same_bits(chunked(*model_, comm, r.tokens, {64, 320}, table), r.logits);
}

TEST_F(Determinism, OneTokenAtATimeGivesTheBitsOfTheWhole) {
  NoComm comm;
  const auto tokens = prompt(150, 1);
  std::vector<std::size_t> cuts(tokens.size() - 1);
  std::iota(cuts.begin(), cuts.end(), 1U);
  const auto got = chunked(*model_, comm, tokens, cuts, blocks_for(tokens.size()));
  expect_same_bits(got, {reference_->logits.begin(),
                         reference_->logits.begin() + static_cast<std::ptrdiff_t>(got.size())});
}

TEST_F(Determinism, TheBlocksThatHoldTheCacheDoNotMatter) {
  NoComm comm;
  const auto& r = *reference_;
  std::vector<engine::BlockId> table = blocks_for(r.tokens.size(), 90, -7);
  // Blocks used before: what the last owner left in them must not be seen.
  expect_same_bits(chunked(*model_, comm, r.tokens, {100}, table), r.logits);
}

TEST_F(Determinism, OthersInTheBatchDoNotMatter) {
  NoComm comm;
  const auto& r = *reference_;
  const auto size = r.tokens.size();
  const std::size_t done = size - 40;
  const auto table = blocks_for(size, 0);
  model_->forward({1, {make_row(r.tokens, 0, done, table)}}, comm);
  // A prompt before, a decode after, and another chunk at the end, in one batch.
  const auto other = prompt(200, 5);
  const auto third = prompt(70, 9);
  model_->forward({2, {make_row(third, 0, 69, blocks_for(70, 40))}}, comm);
  engine::Batch batch{
      3,
      {make_row(other, 0, other.size(), blocks_for(other.size(), 20)),
       make_row(r.tokens, done, size, table), make_row(third, 69, 70, blocks_for(70, 40)),
       make_row(other, 0, 33, blocks_for(33, 50))}};
  batch.rows[0].logits = 0;
  const auto span = model_->forward(batch, comm);
  ASSERT_EQ(span.size(), 3 * r.vocab);
  expect_same_bits({span.begin(), span.begin() + static_cast<std::ptrdiff_t>(r.vocab)}, r.last());
}

TEST_F(Determinism, ASharedPrefixGivesTheBitsOfACacheOfOnesOwn) {
  NoComm comm;
  const auto& r = *reference_;
  const auto size = r.tokens.size();
  const auto whole = blocks_for(size, 0);
  model_->forward({1, {make_row(r.tokens, 0, 320, whole)}}, comm);
  // Two rows read the same five first blocks and go on in blocks of their own.
  auto own = blocks_for(size, 30);
  std::copy_n(whole.begin(), 5, own.begin());
  const auto span = model_->forward(
      {2, {make_row(r.tokens, 320, size, own), make_row(r.tokens, 320, size, whole)}}, comm);
  expect_same_bits({span.begin(), span.begin() + static_cast<std::ptrdiff_t>(r.vocab)}, r.last());
  expect_same_bits({span.begin() + static_cast<std::ptrdiff_t>(r.vocab), span.end()}, r.last());
}

TEST_F(Determinism, ThreadsDoNotMatter) {
  NoComm comm;
  for (const int threads : {2, 3}) {
    const auto model = load_tiny({.threads = threads});
    const auto& r = *reference_;
    expect_same_bits(chunked(*model, comm, r.tokens, {511}, blocks_for(r.tokens.size())), r.logits);
  }
}

TEST_F(Determinism, InstructionSetsDoNotMatter) {
  NoComm comm;
  // Short: the generic table has no hardware for its fused multiply-adds.
  const auto tokens = prompt(70, 1);
  const auto size = static_cast<std::ptrdiff_t>(tokens.size() * reference_->vocab);
  const Logits wanted(reference_->logits.begin(), reference_->logits.begin() + size);
  for (const kernels::Ops* ops : kernels::available_ops()) {
    const auto model = load_tiny({.ops = ops});
    EXPECT_EQ(model->device(), std::string("cpu/") + ops->name);
    expect_same_bits(all_logits(*model, tokens), wanted);
  }
}

TEST_F(Determinism, TheNumberOfRanksDoesNotMatter) {
  const auto& r = *reference_;
  for (const int size : {2, 4, 8}) {
    auto comms = comm::make_thread_communicators(size);
    std::vector<Logits> got(static_cast<std::size_t>(size));
    std::vector<std::thread> ranks;
    for (int rank = 0; rank < size; ++rank) {
      ranks.emplace_back([&, rank] {
        const auto model = load_tiny({.rank = rank, .size = size});
        got[static_cast<std::size_t>(rank)] =
            chunked(*model, *comms[static_cast<std::size_t>(rank)], r.tokens, {64, 598, 599},
                    blocks_for(r.tokens.size()));
      });
    }
    for (auto& rank : ranks) rank.join();
    expect_same_bits(got[0], r.logits);
    for (int rank = 1; rank < size; ++rank)
      EXPECT_TRUE(got[static_cast<std::size_t>(rank)].empty());
  }
}

TEST_F(Determinism, AnAbortedGroupThrowsOnEveryRank) {
  auto comms = comm::make_thread_communicators(2);
  comms[0]->abort();
  for (int rank = 0; rank < 2; ++rank) {
    const auto model = load_tiny({.rank = rank, .size = 2});
    EXPECT_THROW(
        model->forward({1, {make_row({1, 2}, 0, 2, {0})}}, *comms[static_cast<std::size_t>(rank)]),
        comm::CommError);
  }
}

TEST_F(Determinism, ABatchThatBreaksItsContractIsRefused) {
  NoComm comm;
  const auto refuse = [&](const engine::Row& row) {
    EXPECT_THROW(model_->forward({1, {row}}, comm), std::logic_error);
  };
  refuse(make_row({1536}, 0, 1, {0}));
  refuse(make_row({-1}, 0, 1, {0}));
  refuse(make_row({1}, 0, 1, {kTestBlocks}));
  refuse(make_row({1}, 0, 1, {}));
  auto row = make_row({1}, 0, 1, blocks_for(2049));
  row.start = 2048;
  refuse(row);
}

}  // namespace
}  // namespace dsm::model
