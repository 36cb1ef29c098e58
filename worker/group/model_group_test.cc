// The real model in real groups: however the ranks are cut, connected, batched, interrupted or
// helped by the cache, every logit has the same bits as those of one rank that computes one request
// alone.
#include <gtest/gtest.h>

#include <condition_variable>
#include <latch>
#include <map>
#include <mutex>
#include <random>
#include <string_view>
#include <thread>

#include "tests/model/adapter_writer.h"
#include "worker/engine/engine.h"
#include "worker/group/adapters.h"
#include "worker/group/follower.h"
#include "worker/group/leader.h"
#include "worker/model/adapter_store.h"
#include "worker/model/rank_model.h"
#include "worker/model/row_sampler.h"

namespace dsm::group {
namespace {

using engine::TokenId;

constexpr const char* kModelDir = "models/deepseek-tiny";
constexpr int kNewTokens = 12;

// Logits by (sequence, position of the token that they choose), as a hash of their bits.
using Logits = std::map<std::pair<engine::SequenceId, std::int64_t>, std::size_t>;

struct Recorder {
  std::mutex mutex;
  Logits logits;
  bool contradiction = false;  // the same logits were computed twice with different bits
};

class RecordingRank final : public RankExecutor {
 public:
  RecordingRank(std::unique_ptr<model::RankModel> model, std::shared_ptr<Recorder> recorder)
      : model_(std::move(model)), recorder_(std::move(recorder)) {}

  engine::Samples execute(const engine::Batch& batch, comm::Communicator& comm) override {
    const std::span<const float> logits = model_->forward(batch, comm);
    engine::Samples samples{.id = batch.id, .samples = {}};
    if (comm.rank() != 0) {
      return samples;
    }
    const auto vocab = static_cast<std::size_t>(model_->config().vocab_size);
    model::RowSampler sampler(vocab, vocab);
    std::size_t used = 0;
    for (const engine::Row& row : batch.rows) {
      if (row.logits == 0) {
        continue;
      }
      const auto mine = logits.subspan(used, static_cast<std::size_t>(row.logits) * vocab);
      used += mine.size();
      samples.samples.push_back(sampler.choose(row, mine));
      // What follows a draft that was not taken was computed after another text.
      for (std::size_t i = 0; i < samples.samples.back().tokens.size(); ++i) {
        const auto at = static_cast<std::size_t>(row.logits - row.choices) + i;
        record(row.sequence, row.first_choice() + static_cast<std::int64_t>(i),
               mine.subspan(at * vocab, vocab));
      }
    }
    return samples;
  }

 private:
  void record(engine::SequenceId sequence, std::int64_t position, std::span<const float> logits) {
    const std::size_t hash = std::hash<std::string_view>()(
        {reinterpret_cast<const char*>(logits.data()), logits.size_bytes()});
    const std::lock_guard lock(recorder_->mutex);
    const auto [it, is_new] = recorder_->logits.emplace(std::pair(sequence, position), hash);
    recorder_->contradiction |= !is_new && it->second != hash;
  }

  std::unique_ptr<model::RankModel> model_;
  std::shared_ptr<Recorder> recorder_;
};

struct Run {
  int tensor_parallel = 1;
  int ranks_per_pod = 1;  // less than tensor_parallel: pods that talk over Gloo
  int max_batch_tokens = 256;
  int max_num_seqs = 4;
  int num_blocks = 64;  // of each cache
  bool prefix_caching = false;
  bool one_by_one = false;
  bool lose_a_follower = false;
  bool data_parallel_attention = false;
  bool adapted = false;  // half of the requests name an adapter that was loaded while the group ran
};

struct Outcome {
  Logits logits;
  std::vector<std::vector<TokenId>> tokens;
  engine::EngineStats stats;
  std::uint64_t epoch = 0;
};

// Prompts of several lengths; the last shares two blocks with the one before.
const std::vector<std::vector<TokenId>>& prompts() {
  static const auto kPrompts = [] {
    std::mt19937 random(7);
    std::vector<std::vector<TokenId>> made;
    for (const std::size_t size : {1, 60, 188, 200}) {
      std::vector<TokenId> prompt(size);
      for (TokenId& t : prompt) {
        t = static_cast<TokenId>(3 + random() % 1400);
      }
      made.push_back(std::move(prompt));
    }
    std::copy_n(made[2].begin(), 180, made[3].begin());
    return made;
  }();
  return kPrompts;
}

// A folder with an adapter for the attention and the first MLP of the model.
class AdapterDir : public model::TestDir {
 public:
  AdapterDir() {
    model::write_adapter(path(), model::adapter_config(4),
                         model::adapter_tensors({{"model.layers.0.self_attn.q_a_proj", 128, 256},
                                                 {"model.layers.0.mlp.down_proj", 256, 768}},
                                                4, 11));
  }
};

std::shared_ptr<model::AdapterStore> adapter_store(const Run& run, const model::ModelConfig& config,
                                                   int pod) {
  return std::make_shared<model::AdapterStore>(
      config, model::AdapterStore::Spec{.ranks = run.tensor_parallel,
                                        .first_rank = pod * run.ranks_per_pod,
                                        .local_ranks = run.ranks_per_pod,
                                        .data_parallel_attention = run.data_parallel_attention,
                                        .max_adapters = 1,
                                        .max_rank = 4});
}

GroupOptions options(const Run& run, int pod, std::uint16_t port) {
  GroupOptions o;
  o.tensor_parallel = run.tensor_parallel;
  o.ranks_per_pod = run.ranks_per_pod;
  o.pod_index = pod;
  o.leader_host = "127.0.0.1";
  o.bind_host = "127.0.0.1";
  o.control_port = port;
  o.heartbeat_timeout = Millis(60'000);
  o.step_timeout = Millis(60'000);
  return o;
}

Outcome play(const Run& run) {
  auto config = model::load_model_config(kModelDir);
  if (!config) {
    throw std::runtime_error(config.error().message);
  }
  const auto recorder = std::make_shared<Recorder>();
  const AdapterDir folder;
  std::vector<std::shared_ptr<model::AdapterStore>> stores;  // of each pod
  for (int pod = 0; pod < run.tensor_parallel / run.ranks_per_pod; ++pod) {
    stores.push_back(adapter_store(run, *config, pod));
  }
  // The first step waits until all requests are there, so that what is batched does not depend on
  // time.
  std::latch submitted(run.one_by_one ? 0 : 1);
  const RankLoader loader =
      [&](int rank, const LoadProgress& progress) -> Result<std::unique_ptr<RankExecutor>> {
    submitted.wait();
    auto model = model::RankModel::load(
        kModelDir, *config,
        {.rank = rank,
         .size = run.tensor_parallel,
         .threads = 1,
         .ops = nullptr,
         .data_parallel_attention = run.data_parallel_attention,
         .adapters = stores[static_cast<std::size_t>(rank / run.ranks_per_pod)].get()},
        {.num_blocks = run.num_blocks}, run.max_batch_tokens,
        [&](std::int64_t loaded, std::int64_t total) {
          progress(static_cast<std::uint64_t>(loaded), static_cast<std::uint64_t>(total));
        });
    if (!model) {
      return std::unexpected(model.error());
    }
    return std::make_unique<RecordingRank>(std::move(*model), recorder);
  };
  SystemClock clock;
  const auto shared = std::make_shared<SharedAdapters>();
  LeaderGroup leader(options(run, 0, 0), loader, clock, Logger(), shared);
  if (const Status started = leader.start(); !started) {
    throw std::runtime_error(started.error().message);
  }
  std::vector<std::unique_ptr<FollowerGroup>> followers;
  const auto make_follower = [&](int pod) {
    return std::make_unique<FollowerGroup>(
        options(run, pod, leader.control_port()), loader, clock, Logger(),
        std::make_shared<HeldAdapters>(
            [store = stores[static_cast<std::size_t>(pod)]](const SharedAdapter& wanted) {
              return store->load_as(wanted.id, wanted.name, wanted.path);
            }));
  };
  for (int pod = 1; pod < run.tensor_parallel / run.ranks_per_pod; ++pod) {
    followers.push_back(make_follower(pod));
  }
  engine::Engine engine({.max_num_seqs = run.max_num_seqs,
                         .max_batch_tokens = run.max_batch_tokens,
                         .max_model_len = 1024,
                         .num_blocks = run.num_blocks,
                         .kv_caches = run.data_parallel_attention ? run.tensor_parallel : 1,
                         .prefix_caching = run.prefix_caching},
                        leader, clock, Logger());

  AdapterPointer adapter;
  if (run.adapted) {
    adapter = stores[0]->load("adapter", folder.path()).value();
    // Until all pods are there it is refused.
    while (!shared->share(adapter, folder.path(), "digest")) {
      std::this_thread::yield();
    }
  }
  Outcome outcome;
  outcome.tokens.resize(prompts().size());
  std::mutex mutex;
  std::condition_variable changed;
  std::size_t finished = 0;
  for (std::size_t i = 0; i < prompts().size(); ++i) {
    engine::GenerateRequest request;
    request.prompt = prompts()[i];
    request.max_tokens = kNewTokens;
    request.adapter = i % 2 == 1 ? adapter : nullptr;
    // Half of the requests draw their tokens.
    request.sampling = {.temperature = i % 2 == 0 ? 0.0F : 0.8F, .seed = 42};
    const auto id = engine.submit(request, [&, i](const engine::TokenEvent& event) {
      const std::lock_guard lock(mutex);
      auto& mine = outcome.tokens[i];
      mine.insert(mine.end(), event.tokens.begin(), event.tokens.end());
      finished += event.finished ? 1 : 0;
      changed.notify_all();
    });
    EXPECT_TRUE(id);
    std::unique_lock lock(mutex);
    if (run.one_by_one) {
      changed.wait(lock, [&] { return finished == i + 1; });
    }
  }
  if (!run.one_by_one) {
    submitted.count_down();
  }
  if (run.lose_a_follower) {
    {
      std::unique_lock lock(mutex);
      changed.wait(lock, [&] { return outcome.tokens[0].size() >= 3; });
    }
    followers[0].reset();
    followers[0] = make_follower(1);
  }
  {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return finished == prompts().size(); });
  }
  while (engine.stats().running > 0) {
    std::this_thread::yield();
  }
  outcome.stats = engine.stats();
  outcome.epoch = leader.state().epoch;
  const std::lock_guard lock(recorder->mutex);
  EXPECT_FALSE(recorder->contradiction);
  outcome.logits = recorder->logits;
  return outcome;
}

// One rank, one request at a time, whole prompts, no cache.
const Outcome& reference() {
  static const Outcome kReference = play({.max_num_seqs = 1, .one_by_one = true});
  return kReference;
}

void expect_equal_bits(const Outcome& outcome) {
  EXPECT_EQ(outcome.tokens, reference().tokens);
  EXPECT_EQ(outcome.logits, reference().logits);
}

TEST(ModelGroup, ReferenceIsWhole) {
  ASSERT_EQ(reference().logits.size(), prompts().size() * kNewTokens);
  for (const auto& tokens : reference().tokens) {
    EXPECT_EQ(tokens.size(), static_cast<std::size_t>(kNewTokens));
  }
}

TEST(ModelGroup, BatchesAndChunksDoNotChangeABit) {
  expect_equal_bits(play({}));
  expect_equal_bits(play({.max_batch_tokens = 37}));
}

TEST(ModelGroup, ThreadsOfOneProcessDoNotChangeABit) {
  for (const int ranks : {2, 4, 8}) {
    SCOPED_TRACE(ranks);
    expect_equal_bits(play({.tensor_parallel = ranks, .ranks_per_pod = ranks}));
  }
}

TEST(ModelGroup, PodsOverGlooDoNotChangeABit) {
  for (const auto& [ranks, per_pod] : {std::pair{2, 1}, {4, 1}, {4, 2}, {8, 2}}) {
    SCOPED_TRACE(ranks);
    expect_equal_bits(play({.tensor_parallel = ranks, .ranks_per_pod = per_pod}));
  }
}

TEST(ModelGroup, PrefixHitsDoNotChangeABit) {
  const Outcome outcome =
      play({.tensor_parallel = 2, .ranks_per_pod = 1, .prefix_caching = true, .one_by_one = true});
  expect_equal_bits(outcome);
  EXPECT_EQ(outcome.stats.prefix_hit_tokens, 128U);
}

TEST(ModelGroup, PreemptionDoesNotChangeABit) {
  const Outcome outcome =
      play({.tensor_parallel = 2, .ranks_per_pod = 2, .max_batch_tokens = 64, .num_blocks = 10});
  expect_equal_bits(outcome);
  EXPECT_GT(outcome.stats.preemptions, 0U);
}

TEST(ModelGroup, AnAdapterThatWasLoadedWhileItRanHasTheSameBitsOnAllPodsAndAfterALoss) {
  const Outcome alone = play({.max_num_seqs = 1, .one_by_one = true, .adapted = true});
  EXPECT_NE(alone.tokens, reference().tokens) << "it changes what is said";
  const Outcome outcome = play({.tensor_parallel = 4,
                                .ranks_per_pod = 2,
                                .prefix_caching = true,
                                .lose_a_follower = true,
                                .adapted = true});
  EXPECT_EQ(outcome.tokens, alone.tokens);
  EXPECT_EQ(outcome.logits, alone.logits);
  EXPECT_EQ(outcome.epoch, 2U);
}

TEST(ModelGroup, RanksThatAttendToSequencesOfTheirOwnDoNotChangeABit) {
  for (const auto& [ranks, per_pod] : {std::pair{4, 4}, {4, 2}}) {
    SCOPED_TRACE(per_pod);
    expect_equal_bits(play({.tensor_parallel = ranks,
                            .ranks_per_pod = per_pod,
                            .max_batch_tokens = 64,
                            .num_blocks = 4,
                            .data_parallel_attention = true}));
  }
}

TEST(ModelGroup, ALostCacheOfOneOfThemDoesNotChangeABit) {
  const Outcome lost = play({.tensor_parallel = 2,
                             .ranks_per_pod = 1,
                             .prefix_caching = true,
                             .lose_a_follower = true,
                             .data_parallel_attention = true});
  expect_equal_bits(lost);
  EXPECT_EQ(lost.epoch, 2U);
}

TEST(ModelGroup, ALostFollowerDoesNotChangeABit) {
  const Outcome outcome = play(
      {.tensor_parallel = 2, .ranks_per_pod = 1, .prefix_caching = true, .lose_a_follower = true});
  expect_equal_bits(outcome);
  EXPECT_EQ(outcome.epoch, 2U);
}

}  // namespace
}  // namespace dsm::group
