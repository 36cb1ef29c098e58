// The whole model on the device that is there: asleep it leaves the memory to others, and awake
// again it computes the same bits, with adapters and in steps that repeat.
#include <cstdint>
#include <string>

#include "tests/model/model_fixture.h"
#include "worker/device/devices.h"
#include "worker/device/gpu.h"
#include "worker/model/adapter_store.h"
#include "worker/model/weights.h"

namespace dsm::model {
namespace {

using Tokens = std::vector<engine::TokenId>;
using Logits = std::vector<float>;

device::Device here() {
  return *device::find_device("auto");
}

RankSpec sleeper() {
  return {.device = here(), .sleeps = true};
}

std::string family(const std::string& name) {
  return "tests/goldens/families/" + name;
}

Logits copy(std::span<const float> logits) {
  return {logits.begin(), logits.end()};
}

// A prompt and then `steps` tokens one by one, all of whose logits are kept.
Logits logits_of(RankModel& model, engine::AdapterId adapter = engine::kNoAdapter, int steps = 4) {
  NoComm comm;
  Tokens tokens = {7, 3, 11, 5, 2};
  const auto table = blocks_for(tokens.size() + static_cast<std::size_t>(steps), 3);
  Logits all;
  std::size_t done = 0;
  for (int i = 0; i <= steps; ++i) {
    engine::Row row = make_row(tokens, done, tokens.size(), table);
    row.adapter = adapter;
    done = tokens.size();
    const Logits logits = copy(model.forward({1, {std::move(row)}}, comm));
    all.insert(all.end(), logits.begin(), logits.end());
    tokens.push_back(i % 13 + 1);
  }
  return all;
}

class FamilyAsleep : public testing::TestWithParam<const char*> {};

TEST_P(FamilyAsleep, ComputesTheSameBitsAfterwards) {
  const auto model = load_checkpoint(family(GetParam()), sleeper());
  const Logits before = logits_of(*model);
  for (int night = 0; night < 2; ++night) {
    model->sleep();
    model->wake();
    EXPECT_EQ(logits_of(*model), before) << night;
  }
}

INSTANTIATE_TEST_SUITE_P(Families, FamilyAsleep,
                         testing::Values("llama", "deepseek_v3_small", "deepseek_v32"),
                         [](const auto& param) { return std::string(param.param); });

TEST(ModelSleep, TakesTheAdaptersAlong) {
  const std::string dir = family("llama");
  AdapterStore store(*load_model_config(dir),
                     {.segmented = cuts_segments(here(), true), .max_rank = 8});
  RankSpec spec = sleeper();
  spec.adapters = &store;
  const auto model = load_checkpoint(dir, spec);
  const auto loaded = store.load("lora-all", dir + "/lora-all");
  ASSERT_TRUE(loaded) << loaded.error().message;
  const Logits plain = logits_of(*model);
  const Logits adapted = logits_of(*model, (*loaded)->id);
  EXPECT_NE(adapted, plain);
  model->sleep();
  model->wake();
  EXPECT_EQ(logits_of(*model, (*loaded)->id), adapted);
  EXPECT_EQ(logits_of(*model), plain);
}

// Nothing but the lists' own buffers is left on the device.
TEST(ModelSleep, LeavesTheDevicesMemoryToOthers) {
  if (here() != device::Device::kCuda) GTEST_SKIP() << "a CPU's memory is the host's";
  // The kernels' own code is on the device when they have been started.
  const Logits logits = logits_of(*load_checkpoint(family("llama"), sleeper()));
  const std::int64_t before = device::free_gpu_bytes();
  const auto model = load_checkpoint(family("llama"), sleeper());
  EXPECT_EQ(logits_of(*model), logits);
  const std::int64_t awake = before - device::free_gpu_bytes();
  model->sleep();
  const std::int64_t asleep = before - device::free_gpu_bytes();
  model->wake();
  EXPECT_EQ(logits_of(*model), logits);
  const std::int64_t again = before - device::free_gpu_bytes();
  constexpr std::int64_t kLists = std::int64_t{24} << 20;
  constexpr std::int64_t kModel = std::int64_t{8} << 20;  // at least, with its cache
  constexpr std::int64_t kPages = std::int64_t{4} << 20;  // a GPU's are of 2 MiB
  EXPECT_LT(asleep, kLists);
  EXPECT_GT(awake, asleep + kModel);
  EXPECT_LE(again, awake + kPages);
}

// Before the ranks have agreed on a number of blocks there is no cache yet.
TEST(ModelSleep, MaySleepBeforeItHasACache) {
  const std::string dir = family("llama");
  const auto config = load_model_config(dir);
  const auto with_cache = load_checkpoint(dir, sleeper());
  const Logits wanted = logits_of(*with_cache);
  const KvRoom room{.bytes_per_block = 1 << 16, .longest = 64, .free_bytes = [] {
                      return std::int64_t{1} << 30;
                    }};
  auto model = RankModel::load(dir, *config, sleeper(), {.num_blocks = 0, .room = room},
                               kTestBatchTokens, {});
  ASSERT_TRUE(model) << model.error().message;
  (*model)->sleep();
  (*model)->wake();
  ASSERT_TRUE((*model)->make_cache(kTestBlocks));
  EXPECT_EQ(logits_of(**model), wanted);
}

}  // namespace
}  // namespace dsm::model
