#include "worker/kv_size.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

#include "worker/options.h"

namespace dsm::worker {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr std::int64_t kGiB = 1 << 30;

sizing::Shape shape_of(const std::string& path) {
  std::ifstream file(path);
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const auto shape = sizing::parse_shape(text, path);
  EXPECT_TRUE(shape) << shape.error().message;
  return shape.value_or(sizing::Shape{});
}

const sizing::Shape& tiny() {
  static const sizing::Shape kShape = shape_of("models/deepseek-tiny/config.json");
  return kShape;
}
const sizing::Shape& qwen() {
  static const sizing::Shape kShape = shape_of("sizing/models/r1-distill-qwen-7b.json");
  return kShape;
}

TEST(KvSize, the_default_model_has_room_for_all_that_runs_with_the_examples_limit) {
  const sizing::Ask ask{.context = 2048};
  EXPECT_EQ(kv_cache_tokens(tiny(), ask, {}).value(), 16 * 2048);
  EXPECT_EQ(kv_cache_tokens(tiny(), ask, {.limit = 1 * kGiB}).value(), 16 * 2048);
  // With less there is room for fewer; so much was allocated before, and the kernel ended it.
  const auto little = kv_cache_tokens(tiny(), ask, {.limit = kGiB / 4}).value();
  EXPECT_GE(little, 2048);
  EXPECT_LT(little, 16 * 2048);
}

TEST(KvSize, what_the_limit_leaves_is_taken) {
  sizing::Ask ask{.context = 32768};
  EXPECT_EQ(kv_cache_tokens(qwen(), ask, {}).value(), 32768)
      << "1 GiB is less than one request takes";
  const auto tokens = kv_cache_tokens(qwen(), ask, {.limit = 64 * kGiB}).value();
  EXPECT_EQ(tokens, sizing::fit(qwen(), ask, 64 * kGiB).max_kv_tokens);
  EXPECT_GT(tokens, 10 * 32768);
  ask.step.sequences = 2;
  EXPECT_EQ(kv_cache_tokens(qwen(), ask, {.limit = 64 * kGiB}).value(), 2 * 32768)
      << "more is of no use";
}

TEST(KvSize, with_a_cache_on_each_rank_one_request_fits_into_each) {
  sizing::Ask ask{.cut = {.tensor = 4, .data_parallel_attention = true}, .sharing = 4};
  ask.context = 2048;
  EXPECT_EQ(kv_cache_tokens(tiny(), ask, {}).value(), 16 * 2048) << "all that runs, of all ranks";
  ask.step.sequences = 2;
  EXPECT_EQ(kv_cache_tokens(tiny(), ask, {}).value(), 4 * 2048);
}

TEST(KvSize, adapters_find_the_rest_of_the_limit) {
  const sizing::Ask ask{.context = 2048};
  const auto alone = kv_cache_tokens(qwen(), ask, {.limit = 64 * kGiB}).value();
  EXPECT_EQ(alone, 16 * 2048);
  EXPECT_EQ(kv_cache_tokens(qwen(), ask, {.limit = 64 * kGiB, .adapters = true}).value(),
            kv_cache_tokens(qwen(), ask, {}).value());
  EXPECT_FALSE(kv_cache_tokens(qwen(), ask, {.limit = 8 * kGiB, .adapters = true}));
}

TEST(KvSize, what_is_asked_for_is_taken_or_refused) {
  sizing::Ask ask{.context = 32768, .kv_tokens = 4096};
  EXPECT_EQ(kv_cache_tokens(qwen(), ask, {}).value(), 4096);
  EXPECT_EQ(kv_cache_tokens(qwen(), ask, {.limit = 20 * kGiB}).value(), 4096);
  ask.kv_tokens = 1 << 20;
  const auto refused = kv_cache_tokens(qwen(), ask, {.limit = 20 * kGiB});
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("or set --kv-cache-tokens to at most "));
}

TEST(KvSize, one_request_that_finds_no_room_is_a_sentence_with_what_to_change) {
  const auto refused = kv_cache_tokens(qwen(), {.context = 131072}, {.limit = 20 * kGiB});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::kInvalid);
  EXPECT_THAT(refused.error().message,
              StartsWith("the model does not fit: a pod of 1 rank needs "));
  EXPECT_THAT(refused.error().message,
              HasSubstr("Raise the memory limit to 31Gi, or set --tensor-parallel to 2, or set "
                        "--max-model-len to at most "));
}

// The operator and dsmctl count with them where a spec says nothing.
TEST(KvSize, the_defaults_of_a_step_are_the_workers) {
  const Options worker;
  const sizing::StepSize step;
  EXPECT_EQ(step.batch_tokens, worker.max_num_batched_tokens);
  EXPECT_EQ(step.sequences, worker.max_num_seqs);
}

}  // namespace
}  // namespace dsm::worker
