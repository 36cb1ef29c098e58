// How many KV blocks there are when the device's memory says so, and that a cache which is made
// later is like one that was there from the start.
#include "worker/model/kv_room.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "worker/comm/thread_comm.h"
#include "worker/device/gpu.h"
#include "worker/model/rank_model.h"

namespace dsm::model {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::int64_t kGiB = 1 << 30;
constexpr std::int64_t kMiB = 1 << 20;

KvRoom room_of(int longest) {
  return {.bytes_per_block = 8 * kMiB,
          .longest = longest,
          .sequences = 4,
          .fraction = 0.9,
          .free_bytes = nullptr};
}

TEST(KvRoom, is_a_fraction_of_what_weights_and_steps_leave) {
  EXPECT_EQ(kv_blocks_for(room_of(4096), {.free = 61 * kGiB, .steps = kGiB}), 60 * 128 * 9 / 10);
  KvRoom all = room_of(4096);
  all.fraction = 1;
  EXPECT_EQ(kv_blocks_for(all, {.free = 61 * kGiB, .steps = kGiB}), 60 * 128);
  all.later = 2 * kGiB;  // that others will take
  EXPECT_EQ(kv_blocks_for(all, {.free = 61 * kGiB, .steps = kGiB}), 58 * 128);
  all.later = 0;
  // A trial may take less than its own cache of what is free, where pieces of memory are large.
  EXPECT_EQ(kv_blocks_for(all, {.free = kGiB, .steps = -1}), 128);
}

TEST(KvRoom, holds_the_longest_request_or_says_what_to_change) {
  KvRoom room = room_of(4097);  // its last token needs no slot
  room.fraction = 1;
  EXPECT_EQ(kv_blocks_for(room, {.free = 64 * 8 * kMiB, .steps = 0}), 64);
  const auto none = kv_blocks_for(room, {.free = 64 * 8 * kMiB, .steps = 1 * kMiB});
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().kind, ErrorKind::kExhausted);
  EXPECT_THAT(none.error().message, HasSubstr("one request of 4097 tokens"));
  EXPECT_THAT(none.error().message, HasSubstr("512 MiB are free"));
  EXPECT_THAT(none.error().message, HasSubstr("needs 512 MiB"));
  EXPECT_THAT(none.error().message, HasSubstr("max-model-len"));
  EXPECT_FALSE(kv_blocks_for(room_of(1), {.free = 0, .steps = 0})) << "none is not a cache";
  room.later = 16 * kGiB;
  const auto later = kv_blocks_for(room, {.free = 64 * 8 * kMiB, .steps = 0});
  ASSERT_FALSE(later);
  EXPECT_THAT(later.error().message,
              HasSubstr("what comes later 16384 MiB, and of the rest 0 MiB"));
}

TEST(KvRoom, is_measured_with_the_largest_steps) {
  const int blocks = trial_blocks(128);
  ASSERT_EQ(blocks, 3);
  const auto batches = largest_batches(room_of(300), 128, blocks);
  ASSERT_EQ(batches.size(), 3U);
  ASSERT_EQ(batches[0].rows.size(), 1U);
  EXPECT_EQ(batches[0].rows[0].start, 172);
  EXPECT_EQ(batches[0].rows[0].tokens.size(), 128U);
  EXPECT_EQ(batches[0].rows[0].logits, 128);
  EXPECT_THAT(batches[0].rows[0].block_table, ElementsAre(0, 1, 2, 0, 1));
  EXPECT_EQ(batches[1].rows[0].start, 0) << "what is done with short pasts alone";
  EXPECT_EQ(batches[1].rows[0].tokens.size(), 128U);
  ASSERT_EQ(batches[2].rows.size(), 4U);
  EXPECT_EQ(batches[2].rows[3].start, 299);
  EXPECT_THAT(batches[2].rows[1].block_table, ElementsAre(1, 2, 0, 1, 2));
  const auto one_prompt = largest_batches(room_of(100), 128, blocks);
  ASSERT_EQ(one_prompt.size(), 2U);
  EXPECT_EQ(one_prompt[0].rows[0].tokens.size(), 100U);
}

// The model on the CPU, with memory of a device that the test tells.
class RankWithRoom : public ::testing::Test {
 protected:
  RankWithRoom() : config_(*load_model_config(kDir)) {}

  Result<std::unique_ptr<RankModel>> load(KvSpec kv) {
    return RankModel::load(kDir, config_, {}, std::move(kv), kMaxTokens, {});
  }
  // `free` bytes at first, 5 MiB less while a trial is there, of which its cache is a part.
  KvSpec asked(std::int64_t free) {
    KvRoom room = room_of(256);
    room.bytes_per_block = 1 * kMiB;
    room.fraction = 1;
    room.free_bytes = [free, this] { return ++looks_ == 1 ? free : free - 5 * kMiB; };
    return {.num_blocks = 0, .room = room};
  }
  static std::vector<float> logits_of(RankModel& model) {
    const auto comms = comm::make_thread_communicators(1);
    engine::Batch batch;
    engine::Row row;
    row.tokens = {3, 1, 4, 1, 5};
    row.block_table = {2};
    row.logits = 1;
    batch.rows.push_back(row);
    const auto logits = model.forward(batch, *comms[0]);
    return {logits.begin(), logits.end()};
  }

  static constexpr const char* kDir = "models/deepseek-tiny";
  static constexpr int kMaxTokens = 64;
  ModelConfig config_;
  int looks_ = 0;
};

TEST_F(RankWithRoom, makes_the_cache_that_is_agreed_on_and_no_larger_one) {
  const auto model = load(asked(20 * kMiB));
  ASSERT_TRUE(model) << model.error().message;
  // A trial for 64 tokens has 2 blocks, so its steps took 3 MiB.
  EXPECT_EQ((*model)->kv_room(), 17);
  EXPECT_THROW(logits_of(**model), std::logic_error) << "there is no cache yet";
  const auto more = (*model)->make_cache(18);
  ASSERT_FALSE(more);
  EXPECT_EQ(more.error().kind, ErrorKind::kExhausted);
  EXPECT_THAT(more.error().message, HasSubstr("agreed on 18 KV blocks, and there is room for 17"));
  ASSERT_TRUE((*model)->make_cache(9));
  EXPECT_EQ((*model)->kv_room(), 9) << "more cannot be asked of it any more";
  EXPECT_TRUE((*model)->make_cache(8)) << "the one that is there does";
  EXPECT_FALSE((*model)->make_cache(10)) << "nothing grows";
  const auto given = load({.num_blocks = 9});
  ASSERT_TRUE(given);
  EXPECT_EQ((*given)->kv_room(), 0);
  EXPECT_EQ(logits_of(**model), logits_of(**given));
}

// The others have no part in a trial: it would wait for them for ever.
TEST_F(RankWithRoom, of_a_group_is_tried_alone) {
  for (const bool sequences_of_its_own : {false, true}) {
    for (const int rank : {0, 1}) {
      looks_ = 0;
      const auto model = RankModel::load(
          kDir, config_, {.rank = rank, .size = 2, .data_parallel_attention = sequences_of_its_own},
          asked(20 * kMiB), kMaxTokens, {});
      ASSERT_TRUE(model) << model.error().message;
      EXPECT_EQ((*model)->kv_room(), 17);
    }
  }
}

TEST_F(RankWithRoom, is_not_loaded_without_room_for_a_request) {
  const auto model = load(asked(6 * kMiB));
  ASSERT_FALSE(model);
  EXPECT_EQ(model.error().kind, ErrorKind::kExhausted);
  EXPECT_THAT(model.error().message, HasSubstr("one request of 256 tokens"));
}

// With the memory of a GPU, of which the test lets the rank see a part. A real one hands memory out
// in units of 2 MiB and takes some for the code of a kernel when that is first started.
#ifdef DSM_CUDA_EMULATED
constexpr std::int64_t kSeen = 128 * kMiB;
constexpr std::int64_t kUnits = 0;
#else
constexpr std::int64_t kSeen = 4 * kGiB;
constexpr std::int64_t kUnits = 64 * kMiB;
#endif
struct GpuCase {
  const char* dir;
  bool deterministic;
  std::int64_t values_per_token;  // of a layer's cache, in FP32
};
class RankOnAGpu : public ::testing::TestWithParam<GpuCase> {
 protected:
  static constexpr int kMaxTokens = 64;

  // Bytes that are left of what the rank sees.
  std::int64_t left() const { return kSeen - (all_ - device::free_gpu_bytes()); }

  std::int64_t all_ = 0;
};

TEST_P(RankOnAGpu, has_a_cache_of_what_is_left_and_takes_no_more_in_its_largest_steps) {
  if (!device::find_device("cuda")) GTEST_SKIP() << "no GPU";
  const auto config = load_model_config(GetParam().dir);
  ASSERT_TRUE(config);
  all_ = device::free_gpu_bytes();
  std::vector<std::int64_t> looks;
  KvRoom room = room_of(256);
  room.bytes_per_block =
      std::int64_t{engine::kBlockTokens} * config->num_layers * GetParam().values_per_token * 4;
  room.free_bytes = [&] { return looks.emplace_back(left()); };
  const auto model =
      RankModel::load(GetParam().dir, *config,
                      {.device = device::Device::kCuda, .deterministic = GetParam().deterministic},
                      {.num_blocks = 0, .room = room}, kMaxTokens, {});
  ASSERT_TRUE(model) << model.error().message;
  ASSERT_EQ(looks.size(), 2U);
  EXPECT_LT(looks[1], looks[0]) << "steps take memory";
  EXPECT_LE(looks[0] - left(), kUnits) << "the trial gave all of it back";
  const int blocks = (*model)->kv_room();
  const std::int64_t beside = looks[1] + trial_blocks(kMaxTokens) * room.bytes_per_block;
  EXPECT_LE(blocks * room.bytes_per_block, beside * 9 / 10);
  EXPECT_GT((blocks + 1) * room.bytes_per_block, beside * 9 / 10);
  ASSERT_TRUE((*model)->make_cache(blocks));
  const std::int64_t free = left();
  EXPECT_GE(free, beside - blocks * room.bytes_per_block - kUnits)
      << "steps take what they were seen to; the trial had lists of its own, 16 MiB, beside it";
  EXPECT_LT(free, beside / 10 + 20 * kMiB + room.bytes_per_block + kUnits);
  const auto comms = comm::make_thread_communicators(1);
  for (const engine::Batch& batch : largest_batches(room, kMaxTokens, blocks)) {
    (void)(*model)->choose(batch, *comms[0]);
  }
  EXPECT_EQ(left(), free) << "nothing grows";
}

// A latent twice and a rotated key; keys of an indexer. Long prompts expand keys in the loose mode.
INSTANTIATE_TEST_SUITE_P(Models, RankOnAGpu,
                         ::testing::Values(GpuCase{"models/deepseek-tiny", true, 288},
                                           GpuCase{"models/deepseek-tiny", false, 288},
                                           GpuCase{"tests/goldens/families/deepseek_v32", true,
                                                   128}),
                         [](const auto& model) {
                           return std::string(model.index == 2 ? "sparse" : "latent") +
                                  (model.param.deterministic ? "" : "_loose");
                         });

}  // namespace
}  // namespace dsm::model
