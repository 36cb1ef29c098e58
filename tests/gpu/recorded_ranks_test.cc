// Steps of decoding of several ranks that are recorded, with their sums and logits between ranks:
// bits of plain ones, and what becomes of them when a rank is lost. On ranks that share one GPU, or
// else on the CPU, which records nothing.
#include <barrier>
#include <cstdint>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "tests/gpu/counted_starts.h"
#include "tests/model/model_fixture.h"
#include "worker/comm/thread_comm.h"
#include "worker/device/devices.h"
#include "worker/model/lone_rank.h"

namespace dsm::model {
namespace {

using Tokens = std::vector<engine::TokenId>;
using Logits = std::vector<float>;

constexpr std::size_t kSequences = 3;  // padded to four

engine::Row row_of(const Tokens& tokens, std::size_t begin, std::size_t number) {
  return make_row(tokens, begin, tokens.size(),
                  blocks_for(tokens.size() + 8, static_cast<int>(8 * number)));
}

engine::Batch last_tokens(const std::vector<Tokens>& sequences) {
  engine::Batch batch{1, {}};
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    batch.rows.push_back(row_of(sequences[i], sequences[i].size() - 1, i));
  }
  return batch;
}

std::vector<Tokens> prompts(int vocab) {
  std::vector<Tokens> sequences(kSequences);
  for (std::size_t i = 0; i < kSequences; ++i) {
    const int length = 3 + 31 * static_cast<int>(i);
    for (int t = 0; t < length; ++t) sequences[i].push_back((t * 31 + length) % vocab);
  }
  return sequences;
}

void add_token(std::vector<Tokens>& sequences, int step, int vocab) {
  for (Tokens& tokens : sequences) tokens.push_back((step * 11 + 3) % vocab);
}

// A rank with memory for all steps of a test, as a worker has after warming up: on one GPU what is
// taken later may wait for the other ranks' kernels, which wait for this one.
std::unique_ptr<RankModel> loaded(const std::string& dir, RankSpec spec) {
  spec.device = *device::find_device("auto");
  spec.all_reduce = device::AllReduce::kPeer;
  auto model = load_checkpoint(dir, spec);
  LoneRank alone(spec.rank);
  const std::vector<Tokens> sequences = prompts(model->config().vocab_size);
  std::vector<engine::Batch> batches(1, last_tokens(sequences));
  for (std::size_t i = 0; i < kSequences; ++i) batches.push_back({1, {row_of(sequences[i], 0, i)}});
  for (engine::Batch& batch : batches) {
    for (engine::Row& row : batch.rows) row.rank = spec.data_parallel_attention ? spec.rank : 0;
    model->forward_all(batch, alone);
  }
  for (int i = 0; i < 2; ++i) model->forward(batches[0], alone);
  return model;
}

void run(const RankSpec& spec, const std::function<void(RankSpec)>& body) {
  std::vector<std::thread> ranks;
  ranks.reserve(static_cast<std::size_t>(spec.size));
  for (int rank = 0; rank < spec.size; ++rank) {
    RankSpec own = spec;
    own.rank = rank;
    ranks.emplace_back([&body, own] { body(own); });
  }
  for (std::thread& rank : ranks) rank.join();
}

void fill_cache(RankModel& model, const std::vector<Tokens>& sequences, comm::Communicator& comm) {
  for (std::size_t i = 0; i < kSequences; ++i) {
    model.forward({1, {row_of(sequences[i], 0, i)}}, comm);
  }
}

void expect_plain_bits(const std::string& dir, const RankSpec& spec) {
  SCOPED_TRACE(dir + ", " + std::to_string(spec.size) + " ranks, " +
               (spec.deterministic ? "deterministic" : "loose"));
  const auto comms = comm::make_thread_communicators(spec.size);
  run(spec, [&](RankSpec own) {
    comm::Communicator& comm = *comms[static_cast<std::size_t>(own.rank)];
    const auto model = loaded(dir, own);
    const int vocab = model->config().vocab_size;
    std::vector<Tokens> sequences = prompts(vocab);
    model->join(comm);
    fill_cache(*model, sequences, comm);
    // Ranks on one GPU have copies of their parts in two places in turn, which grow once.
    for (int i = 0; i < 2; ++i) model->forward_all(last_tokens(sequences), comm);
    for (int step = 0; step < 3; ++step) {
      add_token(sequences, step, vocab);
      const engine::Batch batch = last_tokens(sequences);
      const auto all = model->forward_all(batch, comm);
      const Logits plain(all.begin(), all.end());
      comm.barrier();
      const std::uint64_t before = graphs_started();
      const std::uint64_t moves = model->moves();
      comm.barrier();
      const auto some = model->forward(batch, comm);
      EXPECT_TRUE(!kCounted || model->moves() > moves) << "step " << step;
      EXPECT_EQ(Logits(some.begin(), some.end()), plain) << "step " << step;
      comm.barrier();
      if (kCounted) {
        const int wanted = step > 0 ? own.size : 0;
        EXPECT_EQ(graphs_started() - before, static_cast<unsigned>(wanted)) << "step " << step;
      }
      comm.barrier();
    }
  });
}

const std::string kFamilies = "tests/goldens/families/";

TEST(RecordedRanks, HaveTheBitsOfPlainSteps) {
  for (const int size : {2, 4}) expect_plain_bits(kFamilies + "llama", {.size = size});
  expect_plain_bits(kFamilies + "llama", {.size = 2, .deterministic = false});
}

TEST(RecordedRanks, HaveTheBitsOfPlainStepsOverExperts) {
  expect_plain_bits(kFamilies + "deepseek_v3", {.size = 2});
  expect_plain_bits(kFamilies + "deepseek_v3",
                    {.size = 2, .deterministic = false, .expert_parallel = true});
}

// Where each rank has a GPU of its own: the kernel waits for room on all of its processors, and
// another rank's that waits for this one has some of it.
TEST(RecordedRanks, HaveTheBitsOfPlainStepsAsOneKernelBetweenSums) {
  if (!kCounted) GTEST_SKIP() << "ranks share a GPU, or there is none";
  expect_plain_bits(kFamilies + "llama", {.size = 2, .kernels = {.megakernel_tokens = 16}});
}

// A step that is not recorded since ranks have other rows in it.
TEST(RecordedRanks, LeaveRowsOfTheirOwnPlain) {
  const RankSpec spec{.size = 2, .data_parallel_attention = true};
  const auto comms = comm::make_thread_communicators(spec.size);
  const std::uint64_t before = graphs_started();
  run(spec, [&](RankSpec own) {
    comm::Communicator& comm = *comms[static_cast<std::size_t>(own.rank)];
    const auto model = loaded(kFamilies + "deepseek_v3", own);
    model->join(comm);
    engine::Batch batch{1, {row_of({5}, 0, 0)}};
    batch.rows[0].rank = 1;
    const auto all = model->forward_all(batch, comm);
    const Logits wanted(all.begin(), all.end());
    for (int step = 0; step < 3; ++step) {
      const auto some = model->forward(batch, comm);
      EXPECT_EQ(Logits(some.begin(), some.end()), wanted);
    }
    comm.barrier();
  });
  EXPECT_EQ(graphs_started(), before);
}

Tokens chosen(RankModel& model, const engine::Batch& batch, comm::Communicator& comm) {
  const StepOutputs outputs = model.choose(batch, comm);
  return {outputs.tokens.begin(), outputs.tokens.end()};
}

// The last rank is lost while the others' graphs wait for it. All meet in another epoch, some
// groups after they have slept, with the same tokens, and record anew.
TEST(RecordedRanks, GoOnInTheNextEpochWhenARankWasLost) {
  for (const int size : {2, 4}) {
    SCOPED_TRACE(size);
    const bool sleeps = size == 2;
    const auto first = comm::make_thread_communicators(size);
    const auto second = comm::make_thread_communicators(size);
    std::barrier<> all(size);
    run({.size = size, .sleeps = sleeps}, [&](RankSpec own) {
      comm::Communicator& lost = *first[static_cast<std::size_t>(own.rank)];
      const auto model = loaded(kFamilies + "llama", own);
      std::vector<Tokens> sequences = prompts(model->config().vocab_size);
      add_token(sequences, 0, model->config().vocab_size);
      const engine::Batch batch = last_tokens(sequences);
      model->join(lost);
      fill_cache(*model, sequences, lost);
      const Tokens wanted = chosen(*model, batch, lost);
      EXPECT_EQ(wanted.size(), own.rank == 0 ? kSequences : 0U);
      for (int step = 0; step < 2; ++step) {
        EXPECT_EQ(chosen(*model, batch, lost), wanted);
      }
      all.arrive_and_wait();
      if (own.rank == size - 1) {
        lost.abort();
      } else {
        EXPECT_THROW(chosen(*model, batch, lost), comm::CommError);
      }
      if (sleeps) {
        model->sleep();
        all.arrive_and_wait();
        model->wake();
      }
      comm::Communicator& comm = *second[static_cast<std::size_t>(own.rank)];
      model->join(comm);
      fill_cache(*model, sequences, comm);
      for (int step = 0; step < 3; ++step) {
        comm.barrier();
        const std::uint64_t before = graphs_started();
        comm.barrier();
        EXPECT_EQ(chosen(*model, batch, comm), wanted) << "step " << step;
        comm.barrier();
        if (kCounted) {
          EXPECT_EQ(graphs_started() > before, step > 0);
        }
      }
      comm.barrier();
    });
  }
}

}  // namespace
}  // namespace dsm::model
