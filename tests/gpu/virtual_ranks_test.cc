// The default model and a mixture of experts cut over ranks, on the device that is there: ranks of
// one process that share one GPU, or else the CPU. Their greedy tokens are the reference's, and
// their logits those of one rank within the bound of the sums' order.
#include <algorithm>
#include <barrier>
#include <cmath>
#include <string>
#include <thread>
#include <vector>

#include "tests/model/model_fixture.h"
#include "tests/model/wide_heads.h"
#include "worker/comm/thread_comm.h"
#include "worker/device/devices.h"

namespace dsm::model {
namespace {

using Tokens = std::vector<engine::TokenId>;

// As model_device_test.cc's.
constexpr double kBound = 2e-3;
constexpr double kLooseBound = 0.25;

// Of the goldens' texts, the one that is taken, and how many tokens follow. The emulated GPU
// (kernels/cuda/emulation) takes a shorter one.
#ifdef DSM_CUDA_EMULATED
constexpr std::size_t kText = 1;
constexpr std::size_t kContinued = 3;
#else
constexpr std::size_t kText = 4;
constexpr std::size_t kContinued = 8;
#endif

constexpr const char* kExperts = "tests/goldens/families/deepseek_v3";

struct Answer {
  std::vector<float> logits;  // [tokens, vocab] of the prompt
  Tokens continuation;        // greedy
};

// What rank 0 says, after two epochs: a rank joins anew with the memory of the one before.
Answer answer_of(const std::string& dir, RankSpec spec, const GoldenCase& golden,
                 std::size_t count) {
  Answer answer;
  // Where ranks attend to rows of their own, the last of them does.
  const auto row_of = [&spec](const Tokens& tokens, std::size_t begin,
                              std::vector<engine::BlockId> table) {
    engine::Row row = make_row(tokens, begin, tokens.size(), std::move(table));
    row.rank = spec.data_parallel_attention ? spec.size - 1 : 0;
    return row;
  };
  auto first = comm::make_thread_communicators(spec.size);
  auto second = comm::make_thread_communicators(spec.size);
  std::vector<std::thread> ranks;
  ranks.reserve(first.size());
  for (int rank = 0; rank < spec.size; ++rank) {
    ranks.emplace_back([&, rank] {
      RankSpec own = spec;
      own.rank = rank;
      own.device = *device::find_device("auto");
      const auto model = load_checkpoint(dir, own);
      const auto at = static_cast<std::size_t>(rank);
      model->join(*first[at]);
      model->forward({1, {row_of(golden.tokens, 0, blocks_for(golden.tokens.size(), 7))}},
                     *first[at]);
      comm::Communicator& comm = *second[at];
      model->join(comm);
      auto tokens = golden.tokens;
      const auto table = blocks_for(tokens.size() + count);
      const auto all = model->forward_all({2, {row_of(tokens, 0, table)}}, comm);
      std::vector<float> last;
      const auto vocab = static_cast<std::ptrdiff_t>(model->config().vocab_size);
      if (rank == 0) {
        answer.logits.assign(all.begin(), all.end());
        last.assign(all.end() - vocab, all.end());
      }
      for (std::size_t i = 0; i < count; ++i) {
        engine::TokenId next = 0;
        if (rank == 0) {
          next = static_cast<engine::TokenId>(std::max_element(last.begin(), last.end()) -
                                              last.begin());
          answer.continuation.push_back(next);
        }
        comm.broadcast(std::as_writable_bytes(std::span(&next, 1)), 0);
        tokens.push_back(next);
        const auto row = model->forward({3, {row_of(tokens, tokens.size() - 1, table)}}, comm);
        last.assign(row.begin(), row.end());
      }
    });
  }
  for (std::thread& rank : ranks) rank.join();
  return answer;
}

double difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double most = 0;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    most = std::max(most, std::abs(static_cast<double>(a[i]) - b[i]));
  }
  return most;
}

void expect_like_one_rank(const std::string& dir, const GoldenCase& golden, RankSpec spec,
                          double bound) {
  SCOPED_TRACE(dir + ", " + std::to_string(spec.size) + " ranks");
  RankSpec alone = spec;
  alone.size = 1;
  alone.expert_parallel = false;
  alone.data_parallel_attention = false;
  const Answer wanted = answer_of(dir, alone, golden, 0);
  const Answer got = answer_of(dir, spec, golden, spec.deterministic ? kContinued : 0);
  EXPECT_LT(difference(got.logits, wanted.logits), bound);
  EXPECT_TRUE(
      std::equal(got.continuation.begin(), got.continuation.end(), golden.continuation.begin()));
}

TEST(VirtualRanks, TheDefaultModelOnSomeIsThatOnOne) {
  const GoldenCase golden = load_goldens()[kText];
  for (const int size : {2, 4}) expect_like_one_rank(kTinyModel, golden, {.size = size}, kBound);
  expect_like_one_rank(kTinyModel, golden, {.size = 2, .deterministic = false}, kLooseBound);
}

TEST(VirtualRanks, ExpertsInPartAndAsAWhole) {
  const GoldenCase golden = load_goldens(std::string(kExperts) + "/golden")[kText];
  expect_like_one_rank(kExperts, golden, {.size = 2}, kBound);
  expect_like_one_rank(kExperts, golden,
                       {.size = 2, .deterministic = false, .expert_parallel = true}, kLooseBound);
}

TEST(VirtualRanks, AttentionOfRowsOfTheirOwn) {
  const GoldenCase golden = load_goldens(std::string(kExperts) + "/golden")[kText];
  expect_like_one_rank(kExperts, golden, {.size = 2, .data_parallel_attention = true}, kBound);
  expect_like_one_rank(
      kExperts, golden,
      {.size = 2, .deterministic = false, .expert_parallel = true, .data_parallel_attention = true},
      kLooseBound);
}

// All tokens' logits on rank 0, in the loose mode, of prompts of these lengths: each of the rank of
// its place, where ranks attend to rows of their own.
std::vector<float> logits_of_prompts(const std::string& dir, RankSpec spec,
                                     const std::vector<std::size_t>& lengths) {
  std::vector<float> logits;
  const auto comms = comm::make_thread_communicators(spec.size);
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < spec.size; ++rank) {
    ranks.emplace_back([&, rank] {
      RankSpec own = spec;
      own.rank = rank;
      own.deterministic = false;
      own.device = *device::find_device("auto");
      const auto model = load_checkpoint(dir, own);
      comm::Communicator& comm = *comms[static_cast<std::size_t>(rank)];
      model->join(comm);
      engine::Batch batch{1, {}};
      std::vector<Tokens> prompts(lengths.size());
      int blocks = 0;
      for (std::size_t i = 0; i < lengths.size(); ++i) {
        for (std::size_t t = 0; t < lengths[i]; ++t) {
          prompts[i].push_back(static_cast<int>(t * 37 + i * 11 + 5) % model->config().vocab_size);
        }
        const auto table = blocks_for(lengths[i], blocks);
        blocks += static_cast<int>(table.size());
        batch.rows.push_back(make_row(prompts[i], 0, lengths[i], table));
        if (spec.data_parallel_attention) batch.rows.back().rank = static_cast<int>(i);
      }
      const auto all = model->forward_all(batch, comm);
      if (rank == 0) logits.assign(all.begin(), all.end());
    });
  }
  for (std::thread& rank : ranks) rank.join();
  return logits;
}

// From 512 rows on what products alone read is made as their operands: by a rank of its own rows,
// of which one has enough and the other has few, too, and of all rows in an MLP. As in
// model_device_test.cc a rounding may change a token's experts, so tokens are looked at together.
void expect_prompts_like_one_ranks(const std::string& dir,
                                   const std::vector<std::size_t>& lengths) {
  SCOPED_TRACE(dir + ", " + std::to_string(lengths[1]));
  const auto wanted = logits_of_prompts(dir, {.size = 1}, lengths);
  const auto got = logits_of_prompts(dir, {.size = 2, .data_parallel_attention = true}, lengths);
  ASSERT_EQ(got.size(), wanted.size());
  double differences = 0;
  double all = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double off = static_cast<double>(got[i]) - wanted[i];
    differences += off * off;
    all += static_cast<double>(wanted[i]) * wanted[i];
  }
  EXPECT_LT(std::sqrt(differences / all), 0.05);
}

TEST(VirtualRanks, LongPromptsOfRowsOfTheirOwn) {
  expect_prompts_like_one_ranks(kLiteModel, {530, 515});
  expect_prompts_like_one_ranks(kLiteModel, {515, 3});
  expect_prompts_like_one_ranks(kExperts, {3, 515});
}

TEST(VirtualRanks, ThrowWhenTheGroupIsAborted) {
  auto comms = comm::make_thread_communicators(2);
  std::barrier<> both(2);
  std::vector<std::thread> ranks;
  ranks.reserve(2);
  for (int rank = 0; rank < 2; ++rank) {
    ranks.emplace_back([&, rank] {
      comm::Communicator& comm = *comms[static_cast<std::size_t>(rank)];
      const auto model =
          load_tiny({.rank = rank, .size = 2, .device = *device::find_device("auto")});
      model->join(comm);
      const engine::Batch batch{1, {make_row({1, 2}, 0, 2, {0})}};
      model->forward(batch, comm);
      both.arrive_and_wait();
      if (rank == 1) return comm.abort();
      EXPECT_THROW(model->forward(batch, comm), comm::CommError);
    });
  }
  for (std::thread& rank : ranks) rank.join();
}

}  // namespace
}  // namespace dsm::model
