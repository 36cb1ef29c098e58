// Every model family, as a tiny random checkpoint, against transformers in FP32
// (tests/goldens/make_family_goldens.py) and against itself: the same row has the same bits however
// it is run. determinism_test.cc does the second for the default model in more ways.
#include <cmath>
#include <string>
#include <thread>

#include "tests/model/chunked.h"
#include "tests/model/model_fixture.h"
#include "worker/comm/thread_comm.h"

namespace dsm::model {
namespace {

constexpr double kBound = 1e-3;
// Of the loose mode, to the same reference.
constexpr double kLooseBound = 1e-3;
// And where it multiplies rows in BF16: of the root mean square, of most texts, since near two
// experts, or positions to select, a token may take the other one, and is far off then.
constexpr double kBf16Bound = 0.1;

using Tokens = std::vector<engine::TokenId>;
using Logits = std::vector<float>;

struct FamilyCase {
  const char* name;
  std::vector<int> ranks;  // that cut it, beside 1
};

class Families : public testing::TestWithParam<FamilyCase> {
 protected:
  static std::string dir() { return std::string("tests/goldens/families/") + GetParam().name; }
  static std::vector<GoldenCase> goldens() { return load_goldens(dir() + "/golden"); }
  static std::unique_ptr<RankModel> load(RankSpec spec = {}) {
    return load_checkpoint(dir(), spec);
  }
};

TEST_P(Families, LogitsAndGreedyTokensAreThoseOfTheReference) {
  const auto model = load();
  const auto vocab = static_cast<std::size_t>(model->config().vocab_size);
  NoComm comm;
  double worst = 0;
  for (const auto& golden : goldens()) {
    auto tokens = golden.tokens;
    auto logits = chunked(*model, comm, tokens, {});
    for (std::size_t i = 0; i < golden.positions.size(); ++i) {
      double difference = 0;
      for (std::size_t v = 0; v < vocab; ++v) {
        const double ours = logits[golden.positions[i] * vocab + v];
        difference = std::max(difference, std::abs(ours - golden.logits[i][v]));
      }
      EXPECT_LT(difference, kBound) << tokens.size() << " tokens, position " << golden.positions[i];
      worst = std::max(worst, difference);
    }
    const auto table = blocks_for(tokens.size() + golden.continuation.size());
    Tokens continuation;
    std::size_t done = 0;
    while (continuation.size() < golden.continuation.size()) {
      const auto span = model->forward({1, {make_row(tokens, done, tokens.size(), table)}}, comm);
      done = tokens.size();
      const auto best = std::max_element(span.begin(), span.end()) - span.begin();
      continuation.push_back(static_cast<engine::TokenId>(best));
      tokens.push_back(continuation.back());
    }
    EXPECT_EQ(continuation, golden.continuation) << golden.tokens.size() << " tokens";
  }
  std::printf("%s: largest difference to the reference: %.2e\n", GetParam().name, worst);
}

TEST_P(Families, ChunksThreadsAndOthersInTheBatchDoNotMatter) {
  NoComm comm;
  const auto tokens = goldens().back().tokens;
  const auto model = load();
  const auto whole = chunked(*model, comm, tokens, {});
  expect_same_bits(chunked(*model, comm, tokens, {1, 2, 65, 128, 320}, 40), whole);
  expect_same_bits(chunked(*load({.threads = 3}), comm, tokens, {300}), whole);

  const auto vocab = static_cast<std::size_t>(model->config().vocab_size);
  const Tokens other(tokens.rbegin(), tokens.rbegin() + 150);
  model->forward({1, {make_row(tokens, 0, tokens.size() - 1, blocks_for(tokens.size()))}}, comm);
  const auto span = model->forward(
      {2,
       {make_row(other, 0, other.size(), blocks_for(other.size(), 50)),
        make_row(tokens, tokens.size() - 1, tokens.size(), blocks_for(tokens.size())),
        make_row(other, 0, 33, blocks_for(33, 60))}},
      comm);
  ASSERT_EQ(span.size(), 3 * vocab);
  expect_same_bits(span.subspan(vocab, vocab), std::span(whole).last(vocab));
}

TEST_P(Families, TheNumberOfRanksDoesNotMatter) {
  NoComm alone;
  const auto tokens = goldens().back().tokens;
  const auto whole = chunked(*load(), alone, tokens, {});
  for (const int size : GetParam().ranks) {
    auto comms = comm::make_thread_communicators(size);
    std::vector<Logits> got(static_cast<std::size_t>(size));
    std::vector<std::thread> ranks;
    ranks.reserve(static_cast<std::size_t>(size));
    for (int rank = 0; rank < size; ++rank) {
      ranks.emplace_back([&, rank] {
        const auto at = static_cast<std::size_t>(rank);
        const auto model = load({.rank = rank, .size = size});
        got[at] = chunked(*model, *comms[at], tokens, {64, 399});
      });
    }
    for (auto& rank : ranks) rank.join();
    expect_same_bits(got[0], whole);
  }
}

// Every token is computed after the reference's, not after what this mode would choose.
void expect_within_bound(const GoldenCase& golden, const Logits& logits, std::size_t vocab) {
  const auto choice_of = [](const auto& row) {
    const auto best = std::max_element(row.begin(), row.end());
    double lead = 1e9;
    for (auto it = row.begin(); it != row.end(); ++it) {
      if (it != best) lead = std::min(lead, static_cast<double>(*best) - *it);
    }
    return std::pair(static_cast<engine::TokenId>(best - row.begin()), lead);
  };
  const auto row_of = [&](std::size_t position) {
    return std::span(logits).subspan(position * vocab, vocab);
  };
  for (std::size_t i = 0; i < golden.positions.size(); ++i) {
    const auto ours = row_of(golden.positions[i]);
    for (std::size_t v = 0; v < vocab; ++v) {
      ASSERT_NEAR(ours[v], golden.logits[i][v], kLooseBound) << golden.positions[i];
    }
    const auto [token, lead] = choice_of(golden.logits[i]);
    if (lead > 2 * kLooseBound) {
      EXPECT_EQ(choice_of(ours).first, token);
    }
  }
  for (std::size_t i = 0; i < golden.continuation.size(); ++i) {
    const auto [token, lead] = choice_of(row_of(golden.tokens.size() - 1 + i));
    if (lead > 2 * kLooseBound) {
      EXPECT_EQ(token, golden.continuation[i]);
    }
  }
}

double root_mean_square(const GoldenCase& golden, const Logits& logits, std::size_t vocab) {
  double sum = 0;
  for (std::size_t i = 0; i < golden.positions.size(); ++i) {
    for (std::size_t v = 0; v < vocab; ++v) {
      const double difference = logits[golden.positions[i] * vocab + v] - golden.logits[i][v];
      sum += difference * difference;
    }
  }
  return std::sqrt(sum / static_cast<double>(golden.positions.size() * vocab));
}

// Every rank runs the goldens' texts in the loose mode; rank 0's logits are compared.
void expect_loose_within_bound(const std::string& dir, int size, bool expert_parallel,
                               const kernels::Bf16Ops* bf16 = nullptr) {
  SCOPED_TRACE(std::to_string(size) + " ranks");
  auto comms = comm::make_thread_communicators(size);
  std::vector<std::thread> ranks;
  ranks.reserve(static_cast<std::size_t>(size));
  for (int rank = 0; rank < size; ++rank) {
    ranks.emplace_back([&, rank] {
      auto& comm = *comms[static_cast<std::size_t>(rank)];
      const auto model = load_checkpoint(dir, {.rank = rank,
                                               .size = size,
                                               .bf16 = bf16,
                                               .deterministic = false,
                                               .expert_parallel = expert_parallel});
      const auto vocab = static_cast<std::size_t>(model->config().vocab_size);
      std::vector<double> in_bf16;
      for (const auto& golden : load_goldens(dir + "/golden")) {
        auto tokens = golden.tokens;
        tokens.insert(tokens.end(), golden.continuation.begin(), golden.continuation.end());
        // The last of them one by one, as an answer is computed.
        std::vector<std::size_t> cuts(golden.continuation.size());
        std::iota(cuts.begin(), cuts.end(), golden.tokens.size());
        const auto logits = chunked(*model, comm, tokens, cuts);
        if (rank != 0) continue;
        if (bf16 == nullptr) {
          expect_within_bound(golden, logits, vocab);
        } else {
          in_bf16.push_back(root_mean_square(golden, logits, vocab));
        }
      }
      if (in_bf16.empty()) return;
      std::ranges::sort(in_bf16);
      EXPECT_GT(in_bf16.back(), 1e-5) << "nothing was in BF16";
      EXPECT_LT(in_bf16[in_bf16.size() / 2], kBf16Bound);
    });
  }
  for (auto& rank : ranks) rank.join();
}

TEST_P(Families, TheLooseModeStaysWithinItsBoundOnAnyNumberOfRanks) {
  expect_loose_within_bound(dir(), 1, false);
  for (const int size : GetParam().ranks) expect_loose_within_bound(dir(), size, false);
}

TEST_P(Families, ProductsInBf16StayWithinTheirBoundOnAnyNumberOfRanks) {
  if (kernels::bf16_ops() == nullptr) GTEST_SKIP() << "this processor has no tiles of BF16";
  expect_loose_within_bound(dir(), 1, false, kernels::bf16_ops());
  for (const int size : GetParam().ranks) {
    expect_loose_within_bound(dir(), size, false, kernels::bf16_ops());
  }
}

TEST_P(Families, ExpertsOnRanksOfTheirOwnStayWithinTheSameBound) {
  const auto config = load_model_config(dir());
  for (const int size : GetParam().ranks) {
    if (check_expert_parallel(*config, size, false)) {
      expect_loose_within_bound(dir(), size, true);
    } else {
      EXPECT_THROW(load({.size = size, .deterministic = false, .expert_parallel = true}),
                   std::runtime_error);
    }
  }
}

TEST_P(Families, InstructionSetsDoNotMatter) {
  NoComm comm;
  auto tokens = goldens().back().tokens;
  tokens.resize(70);
  const auto wanted = chunked(*load(), comm, tokens, {});
  for (const kernels::Ops* ops : kernels::available_ops()) {
    expect_same_bits(chunked(*load({.ops = ops}), comm, tokens, {}), wanted);
  }
}

TEST_P(Families, ASizeThatDoesNotCutItIsRefusedWithTheNumbers) {
  const auto config = load_model_config(dir());
  ASSERT_TRUE(config) << config.error().message;
  for (const int size : {1, 2, 4, 8}) {
    const auto& ranks = GetParam().ranks;
    const bool allowed = size == 1 || std::find(ranks.begin(), ranks.end(), size) != ranks.end();
    EXPECT_EQ(check_tensor_parallel(*config, size).has_value(), allowed) << size;
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, Families,
    testing::Values(FamilyCase{"llama", {2, 4, 8}}, FamilyCase{"qwen2", {2, 4}},
                    FamilyCase{"qwen3", {2, 4, 8}}, FamilyCase{"deepseek_v2_lite", {2, 4}},
                    FamilyCase{"deepseek_v2", {2, 4}}, FamilyCase{"deepseek_v3", {2, 4}},
                    FamilyCase{"deepseek_v3_small", {2, 4}}, FamilyCase{"deepseek_v32", {2, 4}}),
    [](const auto& family) { return std::string(family.param.name); });

}  // namespace
}  // namespace dsm::model
