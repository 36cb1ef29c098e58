// The probe with the real model: right in every mode, and wrong where weights have changed although
// their file can be read.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "worker/engine/engine.h"
#include "worker/group/follower.h"
#include "worker/group/leader.h"
#include "worker/model/probe_file.h"
#include "worker/model/rank_model.h"
#include "worker/model/row_sampler.h"

namespace dsm::group {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

const fs::path kModelDir = "models/deepseek-tiny";
constexpr int kBatchTokens = 16;  // the prompt is computed in chunks

class ModelRank final : public RankExecutor {
 public:
  explicit ModelRank(std::unique_ptr<model::RankModel> model) : model_(std::move(model)) {}

  engine::Samples execute(const engine::Batch& batch, comm::Communicator& comm) override {
    const std::span<const float> logits = model_->forward(batch, comm);
    engine::Samples samples{.id = batch.id, .samples = {}};
    const auto vocab = static_cast<std::size_t>(model_->config().vocab_size);
    // The probe is one row.
    if (!logits.empty()) {
      samples.samples.push_back(model::RowSampler(vocab, vocab).choose(batch.rows.at(0), logits));
    }
    return samples;
  }

 private:
  std::unique_ptr<model::RankModel> model_;
};

// A copy of the model in which half of the values of one tensor have changed their sign.
class Corrupted {
 public:
  explicit Corrupted(const std::string& tensor)
      : dir_(fs::temp_directory_path() / ("probe-" + std::to_string(::getpid()) + "-" + tensor)) {
    fs::create_directory(dir_);
    for (const char* name : {"config.json", "model.safetensors"}) {
      fs::copy_file(kModelDir / name, dir_ / name, fs::copy_options::overwrite_existing);
    }
    std::fstream file(dir_ / "model.safetensors", std::ios::binary | std::ios::in | std::ios::out);
    std::uint64_t size = 0;
    file.read(reinterpret_cast<char*>(&size), sizeof(size));
    std::string header(size, '\0');
    file.read(header.data(), static_cast<std::streamsize>(size));
    const auto place = nlohmann::json::parse(header)[tensor]["data_offsets"];
    const auto begin =
        static_cast<std::streamoff>(sizeof(size) + size + place[0].get<std::uint64_t>());
    std::string bytes((place[1].get<std::size_t>() - place[0].get<std::size_t>()) / 2, '\0');
    file.seekg(begin);
    file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    for (std::size_t i = 1; i < bytes.size(); i += 2) {  // the upper bytes of BF16
      bytes[i] = static_cast<char>(static_cast<unsigned char>(bytes[i]) ^ 0x80U);
    }
    file.seekp(begin);
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }
  Corrupted(const Corrupted&) = delete;
  Corrupted& operator=(const Corrupted&) = delete;
  ~Corrupted() { fs::remove_all(dir_); }

  const fs::path& dir() const { return dir_; }

 private:
  fs::path dir_;
};

RankLoader loader(const fs::path& dir, int ranks, bool deterministic = true) {
  return [=](int rank, const LoadProgress&) -> Result<std::unique_ptr<RankExecutor>> {
    const auto config = model::load_model_config(dir);
    if (!config) return std::unexpected(config.error());
    auto model = model::RankModel::load(
        dir, *config, {.rank = rank, .size = ranks, .deterministic = deterministic},
        {.num_blocks = 16}, kBatchTokens, {});
    if (!model) return std::unexpected(model.error());
    return std::make_unique<ModelRank>(std::move(*model));
  };
}

engine::Probe tiny_probe(bool exact = true) {
  const auto file = model::load_probe_file(kModelDir, 1536, engine::Probe::kMaxTokens);
  return {.prompt = (*file)->prompt,
          .answer_tokens = static_cast<int>((*file)->answer.size()),
          .expected = (*file)->answer,
          .exact = exact};
}

std::unique_ptr<engine::Engine> engine_of(LeaderGroup& leader, Clock& clock, engine::Probe probe) {
  return std::make_unique<engine::Engine>(
      engine::SchedulerConfig{
          .max_num_seqs = 4, .max_batch_tokens = kBatchTokens, .num_blocks = 16},
      leader, clock, Logger(), std::move(probe));
}

// Waits for the outcome of a probe. Empty: it was right.
std::string verdict(const LeaderGroup& leader, const engine::Engine& engine) {
  for (;;) {
    if (engine.stats().serving) return "";
    if (const GroupState state = leader.state(); state.phase == Phase::kFailed) {
      return state.reason + ": " + state.message;
    }
    std::this_thread::yield();
  }
}

// Of a group of one pod.
std::string verdict_of(const fs::path& dir, const engine::Probe& probe, int ranks = 1) {
  SystemClock clock;
  GroupOptions options;
  options.tensor_parallel = ranks;
  options.ranks_per_pod = ranks;
  LeaderGroup leader(options, loader(dir, ranks, probe.exact), clock, Logger());
  const auto engine = engine_of(leader, clock, probe);
  return verdict(leader, *engine);
}

TEST(ModelProbe, IsAnsweredAsTheReferenceDoesInEveryMode) {
  for (const int ranks : {1, 2, 4}) {
    for (const bool exact : {true, false}) {
      SCOPED_TRACE(std::to_string(ranks) + (exact ? " exact" : " loose"));
      EXPECT_EQ(verdict_of(kModelDir, tiny_probe(exact), ranks), "");
    }
  }
}

// Not each: some change no token of this answer.
TEST(ModelProbe, FindsWeightsThatChangeTheAnswer) {
  for (const char* tensor : {"model.layers.0.mlp.down_proj.weight", "lm_head.weight"}) {
    SCOPED_TRACE(tensor);
    const Corrupted copy(tensor);
    for (const bool exact : {true, false}) {
      EXPECT_THAT(verdict_of(copy.dir(), tiny_probe(exact)),
                  HasSubstr("ProbeFailed: the answer to the probe is wrong: token "));
    }
  }
}

// Without an expectation, the answer of the first epoch is one, to the last bit: also weights that
// change no token are found.
TEST(ModelProbe, FindsAPodThatComesBackWithOtherWeights) {
  GroupOptions options;
  options.tensor_parallel = 2;
  options.leader_host = "127.0.0.1";
  options.bind_host = "127.0.0.1";
  options.control_port = 0;
  SystemClock clock;
  LeaderGroup leader(options, loader(kModelDir, 2), clock, Logger());
  ASSERT_TRUE(leader.start());
  GroupOptions other = options;
  other.pod_index = 1;
  other.control_port = leader.control_port();
  auto follower = std::make_unique<FollowerGroup>(other, loader(kModelDir, 2), clock, Logger());
  const auto engine = engine_of(leader, clock, engine::default_probe(1536, 1024));
  ASSERT_EQ(verdict(leader, *engine), "");
  const Corrupted copy("model.layers.1.self_attn.o_proj.weight");
  follower.reset();
  while (engine->stats().serving) std::this_thread::yield();
  follower = std::make_unique<FollowerGroup>(other, loader(copy.dir(), 2), clock, Logger());
  EXPECT_THAT(verdict(leader, *engine), HasSubstr("the first epoch of this process"));
}

}  // namespace
}  // namespace dsm::group
