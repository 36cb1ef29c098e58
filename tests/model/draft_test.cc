// Drafts of the multi-token-prediction layer against a plain reference in double precision
// (tests/goldens/make_mtp_goldens.py) and against themselves, and what they are for: a text that is
// generated with drafts is the text that is generated without.
#include <limits>
#include <string>
#include <thread>

#include "tests/model/model_fixture.h"
#include "worker/comm/thread_comm.h"

namespace dsm::model {
namespace {

using Tokens = std::vector<engine::TokenId>;

struct DraftCase {
  Tokens kept;
  engine::TokenId next;
  Tokens drafts;
};

std::vector<DraftCase> load_draft_cases() {
  std::ifstream file("tests/goldens/deepseek-tiny-mtp.json");
  const auto goldens = load_goldens();
  std::vector<DraftCase> cases;
  for (const auto& entry : nlohmann::json::parse(file)) {
    const auto& golden = goldens.at(entry["case"].get<std::size_t>());
    Tokens text = golden.tokens;
    text.insert(text.end(), golden.continuation.begin(), golden.continuation.end());
    const auto kept = entry["kept"].get<std::ptrdiff_t>();
    cases.push_back({{text.begin(), text.begin() + kept},
                     text.at(static_cast<std::size_t>(kept)),
                     entry["drafts"].get<Tokens>()});
  }
  return cases;
}

std::int32_t size_of(const Tokens& tokens) {
  return static_cast<std::int32_t>(tokens.size());
}

// Feeds the text in chunks that end at `cuts`, each with the token that follows it, and returns the
// drafts after the last.
Tokens drafts_after(RankModel& model, comm::Communicator& comm, const DraftCase& draft_case,
                    std::vector<std::size_t> cuts = {}) {
  const auto& [text, next, wanted] = draft_case;
  cuts.push_back(text.size());
  const auto table = blocks_for(text.size() + wanted.size());
  std::size_t begin = 0;
  Tokens drafts;
  for (const auto cut : cuts) {
    const engine::Batch batch{1, {make_row(text, begin, cut, table)}};
    model.forward(batch, comm);
    const bool last = cut == text.size();
    const DraftRow row{.kept = static_cast<std::int32_t>(cut - begin),
                       .next = last ? next : text[cut],
                       .wanted = last ? size_of(wanted) : 0};
    const auto span = model.draft(batch, {&row, 1}, comm);
    drafts.assign(span.begin(), span.end());
    begin = cut;
  }
  return drafts;
}

class Drafts : public testing::Test {
 protected:
  static void SetUpTestSuite() { model_ = load_tiny({.drafts = true}); }
  static void TearDownTestSuite() { model_.reset(); }
  static std::unique_ptr<RankModel> model_;
};
std::unique_ptr<RankModel> Drafts::model_;

TEST_F(Drafts, AreThoseOfTheReference) {
  NoComm comm;
  std::size_t compared = 0;
  for (const auto& draft_case : load_draft_cases()) {
    EXPECT_EQ(drafts_after(*model_, comm, draft_case), draft_case.drafts)
        << draft_case.kept.size() << " tokens, then " << draft_case.next;
    compared += draft_case.drafts.size();
  }
  EXPECT_GT(compared, 100U);
}

TEST_F(Drafts, ChunksAndOthersInTheBatchDoNotMatter) {
  NoComm comm;
  const auto cases = load_draft_cases();
  const auto& longest =
      *std::max_element(cases.begin(), cases.end(),
                        [](const auto& a, const auto& b) { return a.kept.size() < b.kept.size(); });
  ASSERT_GT(longest.kept.size(), 512U);
  EXPECT_EQ(drafts_after(*model_, comm, longest, {1, 64, 200, longest.kept.size() - 1}),
            longest.drafts);

  // Three sequences in one batch: one in the middle of its prompt, the next without a wish.
  const auto& other = cases.at(cases.size() / 2);
  const auto table = blocks_for(longest.kept.size() + 3);
  const engine::Batch batch{
      1,
      {make_row(other.kept, 0, other.kept.size(), blocks_for(other.kept.size() + 3, 30)),
       make_row(longest.kept, 0, 100, blocks_for(longest.kept.size(), 60)),
       make_row(longest.kept, 0, longest.kept.size(), table)}};
  model_->forward(batch, comm);
  const DraftRow rows[] = {
      {.kept = size_of(other.kept), .next = other.next, .wanted = 1},
      {.kept = 100},
      {.kept = size_of(longest.kept), .next = longest.next, .wanted = size_of(longest.drafts)}};
  const auto drafts = model_->draft(batch, rows, comm);
  Tokens wanted{other.drafts.at(0)};
  wanted.insert(wanted.end(), longest.drafts.begin(), longest.drafts.end());
  EXPECT_EQ(Tokens(drafts.begin(), drafts.end()), wanted);
}

TEST_F(Drafts, TheNumberOfRanksDoesNotMatter) {
  const auto cases = load_draft_cases();
  for (const int size : {2, 8}) {
    auto comms = comm::make_thread_communicators(size);
    std::vector<std::vector<Tokens>> got(static_cast<std::size_t>(size));
    std::vector<std::thread> ranks;
    for (int rank = 0; rank < size; ++rank) {
      ranks.emplace_back([&, rank] {
        const auto at = static_cast<std::size_t>(rank);
        const auto model = load_tiny({.rank = rank, .size = size, .drafts = true});
        for (std::size_t i = 0; i < cases.size(); i += 4) {
          got[at].push_back(drafts_after(*model, *comms[at], cases[i]));
        }
      });
    }
    for (auto& rank : ranks) rank.join();
    for (std::size_t i = 0; i < got[0].size(); ++i) EXPECT_EQ(got[0][i], cases[4 * i].drafts);
    for (const auto& of_rank : got) EXPECT_EQ(of_rank, got[0]);
  }
}

engine::TokenId best_of(std::span<const float> logits) {
  return static_cast<engine::TokenId>(std::max_element(logits.begin(), logits.end()) -
                                      logits.begin());
}

// Draft, verify, keep what agrees; rejected drafts leave traces in both caches that must not be
// seen.
TEST_F(Drafts, ATextGeneratedWithDraftsIsTheTextGeneratedWithout) {
  NoComm comm;
  const auto vocab = static_cast<std::size_t>(model_->config().vocab_size);
  constexpr std::int32_t kDrafts = 3;
  int offered = 0;
  int taken = 0;
  for (const auto& golden : load_goldens()) {
    Tokens text = golden.tokens;
    const auto table = blocks_for(text.size() + golden.continuation.size() + 2 * kDrafts);
    std::size_t done = 0;
    std::size_t drafts = 0;  // at the end of the text
    while (text.size() - drafts < golden.tokens.size() + golden.continuation.size()) {
      const engine::Batch batch{1, {make_row(text, done, text.size(), table)}};
      const auto logits = model_->forward_all(batch, comm);
      const std::size_t sure = text.size() - drafts;
      std::size_t kept = sure;
      engine::TokenId next = best_of(logits.subspan((kept - 1 - done) * vocab, vocab));
      while (kept < text.size() && text[kept] == next) {
        ++kept;
        next = best_of(logits.subspan((kept - 1 - done) * vocab, vocab));
      }
      offered += drafts > 0 ? 1 : 0;
      taken += kept > sure ? 1 : 0;
      const DraftRow row{
          .kept = static_cast<std::int32_t>(kept - done), .next = next, .wanted = kDrafts};
      const auto span = model_->draft(batch, {&row, 1}, comm);
      text.resize(kept);
      text.push_back(next);
      text.insert(text.end(), span.begin(), span.end());
      drafts = span.size();
      done = kept;
    }
    text.resize(golden.tokens.size() + golden.continuation.size());
    EXPECT_EQ(
        Tokens(text.end() - static_cast<std::ptrdiff_t>(golden.continuation.size()), text.end()),
        golden.continuation)
        << golden.tokens.size() << " tokens";
  }
  std::printf("first drafts taken: %d of %d\n", taken, offered);
  EXPECT_GT(taken, 20);
}

TEST_F(Drafts, EndWhereTheBlockTableEnds) {
  NoComm comm;
  Tokens text = load_goldens().back().tokens;
  text.resize(63);
  const engine::Batch batch{1, {make_row(text, 0, 63, {0})}};
  model_->forward(batch, comm);
  const DraftRow row{.kept = 63, .next = 5, .wanted = 4};
  const auto drafts = model_->draft(batch, {&row, 1}, comm);
  // From positions 62 and 63; the next one is in no block.
  ASSERT_EQ(drafts.size(), 4U);
  EXPECT_GE(drafts[0], 0);
  EXPECT_GE(drafts[1], 0);
  EXPECT_EQ(drafts[2], -1);
  EXPECT_EQ(drafts[3], -1);
}

TEST_F(Drafts, RowsThatAreNotThoseOfTheBatchAreRefused) {
  NoComm comm;
  const auto refuse = [&](std::vector<DraftRow> rows) {
    const engine::Batch batch{1, {make_row({4, 5, 6}, 0, 3, {0})}};
    model_->forward(batch, comm);
    EXPECT_THROW(model_->draft(batch, rows, comm), std::logic_error);
  };
  refuse({});
  refuse({{.kept = 0, .next = 7}});
  refuse({{.kept = 4, .next = 7}});
  refuse({{.kept = 3, .next = 1536}});
  refuse({{.kept = 3, .next = -1, .wanted = 1}});
  EXPECT_THROW(load_tiny({})->draft({}, {}, comm), std::logic_error);
}

TEST(PaddedVocabulary, IsNeitherChosenNorDrafted) {
  NoComm comm;
  constexpr int kBound = 40;  // most of the model's favourites are above it
  const auto model = load_tiny({.sampled_vocab = kBound, .drafts = true});
  const DraftCase draft_case = load_draft_cases().at(20);
  const Tokens& text = draft_case.kept;
  const engine::Batch batch{1, {make_row(text, 0, text.size(), blocks_for(text.size() + 8))}};
  const auto logits = model->forward(batch, comm);
  ASSERT_EQ(logits.size(), 1536U);
  EXPECT_GT(logits[kBound - 1], -std::numeric_limits<float>::infinity());
  for (std::size_t i = kBound; i < logits.size(); ++i) {
    ASSERT_EQ(logits[i], -std::numeric_limits<float>::infinity());
  }
  const DraftRow row{.kept = size_of(text), .next = draft_case.next, .wanted = 3};
  for (const auto draft : model->draft(batch, {&row, 1}, comm)) EXPECT_LT(draft, kBound);
}

TEST(DraftsOfAModelWithoutTheLayer, AreRefusedWhenItIsLoaded) {
  const std::string dir = "tests/goldens/families/deepseek_v3";
  const auto config = load_model_config(dir);
  ASSERT_TRUE(config) << config.error().message;
  const auto model = RankModel::load(dir, *config, {.drafts = true}, {.num_blocks = 2}, 8, {});
  ASSERT_FALSE(model);
  EXPECT_NE(model.error().message.find("num_nextn_predict_layers"), std::string::npos);
}

}  // namespace
}  // namespace dsm::model
