#include "sizing/fit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "sizing/testing.h"

namespace dsm::sizing {
namespace {

using testing::config_of;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::public_config;
using testing::public_shape;
using testing::shape_of;

constexpr std::int64_t kMiB = 1 << 20;
constexpr std::int64_t kGiB = 1 << 30;
constexpr Words kWords{"memory", "tensor", "context", "kvTokens"};

// Published counts of parameters.
TEST(Weights, are_those_of_public_models) {
  const struct {
    const char* model;
    double billions;
    double bytes_each;
  } models[] = {{"deepseek-llm-7b", 6.91, 2},      {"r1-distill-qwen-7b", 7.62, 2},
                {"llama-2-13b", 13.02, 2},         {"deepseek-v2-lite", 15.71, 2},
                {"r1-distill-qwen-32b", 32.76, 2}, {"r1-distill-llama-70b", 70.55, 2},
                {"deepseek-v2", 235.74, 2},        {"deepseek-v3", 671.03, 1}};
  for (const auto& [model, billions, bytes_each] : models) {
    for (const Device device : {Device::kGpu, Device::kCpu}) {
      const double bytes = static_cast<double>(weight_bytes(public_shape(model), {}, device));
      // The CPU keeps a scale for each output of an FP8 block: 3 % more.
      EXPECT_NEAR(bytes / (billions * 1e9 * bytes_each), bytes_each == 1 ? 1.02 : 1, 0.02) << model;
    }
  }
}

// Of 6.91 billion weights 0.84 are in the embedding and the head, which become INT8.
TEST(Weights, that_are_rounded_take_their_bits_and_a_scale_for_each_128) {
  const Shape shape = public_shape("deepseek-llm-7b");
  constexpr double kRounded = 6.91 - 0.84;
  for (const Device device : {Device::kGpu, Device::kCpu}) {
    for (const int bits : {8, 4}) {
      const auto bytes = static_cast<double>(weight_bytes(shape, {.weight_bits = bits}, device));
      const double tokens = 0.84 * (1 + 4.0 / 128);
      EXPECT_NEAR(bytes / 1e9, tokens + kRounded * (bits / 8.0 + 4.0 / 128), 0.1) << bits;
    }
  }
}

// In BF16 it is there as a table and as a matrix.
TEST(Weights, of_a_head_that_is_the_embedding_are_there_once_if_rounded) {
  Shape shape = public_shape("deepseek-llm-7b");  // 102,400 tokens
  const auto bytes = [&](bool tied, const WeightCut& cut) {
    shape.tied = tied;
    return weight_bytes(shape, cut, Device::kGpu);
  };
  EXPECT_EQ(bytes(true, {}), bytes(false, {}));
  for (const std::int64_t ranks : {1, 8}) {
    const WeightCut cut{.tensor = ranks, .weight_bits = 4};
    EXPECT_NEAR(static_cast<double>(bytes(false, cut) - bytes(true, cut)),
                102400.0 / static_cast<double>(ranks) * 4096 * (1 + 4.0 / 128), 1e6);
  }
  shape.vocab = 102408;  // an eighth of it is not a number of whole panels
  const WeightCut cut{.tensor = 8, .weight_bits = 4};
  EXPECT_EQ(bytes(true, cut), bytes(false, cut));
}

TEST(Weights, of_a_rank_are_its_share_and_what_stands_on_each) {
  const Shape v2 = public_shape("deepseek-v2");
  const std::int64_t one = weight_bytes(v2, {}, Device::kGpu);
  const std::int64_t eighth = weight_bytes(v2, {.tensor = 8}, Device::kGpu);
  EXPECT_GT(eighth, one / 8);
  EXPECT_LT(eighth, one / 8 + one / 100);
  // KV heads that are fewer than the ranks stand on several.
  auto json = public_config("r1-distill-llama-70b");
  json["num_key_value_heads"] = 1;
  const Shape single = shape_of(json);
  EXPECT_EQ(cache_bytes_per_token(single, {.tensor = 8}, KvType::kBf16),
            cache_bytes_per_token(single, {}, KvType::kBf16));
}

TEST(Cache, of_a_token_is_every_layers_values_in_their_type) {
  const Shape v3 = public_shape("deepseek-v3");
  EXPECT_EQ(cache_bytes_per_token(v3, {}, KvType::kF32), (2 * 512 + 64) * 4 * 61);
  EXPECT_EQ(cache_bytes_per_token(v3, {}, KvType::kBf16), (2 * 512 + 64) * 2 * 61);
  EXPECT_EQ(cache_bytes_per_token(v3, {}, KvType::kFp8), (2 * 512 + 4 * 4 + 64 * 2) * 61);
  EXPECT_EQ(cache_bytes_per_token(v3, {.tensor = 8}, KvType::kBf16), (2 * 512 + 64) * 2 * 61)
      << "a latent stands on each rank";
  EXPECT_EQ(cache_bytes_per_token(v3, {.drafts = true}, KvType::kBf16), (2 * 512 + 64) * 2 * 62);
  const Shape llama = public_shape("r1-distill-llama-70b");
  EXPECT_EQ(cache_bytes_per_token(llama, {.tensor = 4}, KvType::kBf16), 2 * 8 / 4 * 128 * 2 * 80);
  EXPECT_EQ(cache_bytes_per_token(llama, {.tensor = 4}, KvType::kFp8), 2 * 8 / 4 * (128 + 4) * 80);
}

Ask ask_for(std::int64_t context, std::int64_t tensor = 1) {
  return {.device = Device::kCpu, .cut = {.tensor = tensor}, .context = context};
}

TEST(Fit, has_room_for_whole_blocks_of_what_is_left) {
  const Shape shape = public_shape("r1-distill-qwen-7b");
  const Fit found = fit(shape, ask_for(8192), 24 * kGiB);
  EXPECT_TRUE(found.fits);
  EXPECT_EQ(found.max_kv_tokens % kBlockTokens, 0);
  EXPECT_LE(found.parts.fixed() + found.max_kv_tokens * found.parts.cache_per_token, 24 * kGiB);
  EXPECT_GT(found.parts.fixed() + (found.max_kv_tokens + 64) * found.parts.cache_per_token,
            24 * kGiB);
  EXPECT_THAT(sentence(shape, ask_for(8192), found, kWords), HasSubstr("a pod of 1 rank needs "));
}

TEST(Fit, one_request_of_the_longest_context_must_have_room) {
  const Shape shape = public_shape("r1-distill-qwen-7b");
  const std::int64_t room = fit(shape, ask_for(64), 24 * kGiB).max_kv_tokens;
  EXPECT_TRUE(fit(shape, ask_for(room), 24 * kGiB).fits);
  EXPECT_FALSE(fit(shape, ask_for(room + 1), 24 * kGiB).fits);
  // Unless a smaller cache is asked for: then requests are shorter.
  Ask ask = ask_for(room + 1);
  ask.kv_tokens = 64;
  EXPECT_TRUE(fit(shape, ask, 24 * kGiB).fits);
}

// Each remedy that a sentence names is true, and a little less is not enough.
TEST(Fit, names_remedies_that_help) {
  const Shape shape = public_shape("r1-distill-qwen-7b");
  const Ask ask = ask_for(131072);
  const Fit found = fit(shape, ask, 20 * kGiB);
  ASSERT_FALSE(found.fits);
  const std::string text = sentence(shape, ask, found, kWords);
  EXPECT_THAT(text, HasSubstr("and has 20.0 GiB. Raise memory to 31Gi, or set tensor to 2, or set "
                              "context to at most " +
                              std::to_string(found.max_kv_tokens)));
  EXPECT_TRUE(fit(shape, ask, 31 * kGiB).fits);
  EXPECT_FALSE(fit(shape, ask, 30 * kGiB).fits);
  EXPECT_TRUE(fit(shape, ask_for(131072, 2), 20 * kGiB).fits);
  EXPECT_TRUE(fit(shape, ask_for(found.max_kv_tokens), 20 * kGiB).fits);
}

TEST(Fit, offers_no_tensor_that_cannot_cut_the_model_nor_a_context_of_nothing) {
  const Shape shape = public_shape("r1-distill-qwen-7b");  // 28 heads: 4 at most
  const Ask ask = ask_for(131072, 4);
  const Fit found = fit(shape, ask, 2 * kGiB);
  ASSERT_FALSE(found.fits);
  EXPECT_EQ(found.max_kv_tokens, 0);
  EXPECT_THAT(sentence(shape, ask, found, kWords), Not(HasSubstr("or set")));
}

TEST(Fit, a_cache_that_was_asked_for_by_its_size_is_made_smaller) {
  const Shape shape = public_shape("r1-distill-qwen-7b");
  Ask ask = ask_for(4096);
  ask.kv_tokens = 1'000'000'000;
  const Fit found = fit(shape, ask, 24 * kGiB);
  EXPECT_FALSE(found.fits);
  EXPECT_THAT(sentence(shape, ask, found, kWords), HasSubstr("or set kvTokens to at most"));
}

TEST(Fit, ranks_of_a_pod_share_its_memory_and_accelerators_have_their_own) {
  const Shape shape = public_shape("r1-distill-llama-70b");
  Ask ask = ask_for(8192, 4);
  ask.sharing = 4;
  const Need together = need_of(shape, ask, 0);
  ask.sharing = 1;
  const Need alone = need_of(shape, ask, 0);
  EXPECT_EQ(together.weights, 4 * alone.weights);
  EXPECT_EQ(together.cache_per_token, 4 * alone.cache_per_token);
  EXPECT_LT(together.scratch, 4 * alone.scratch) << "the first rank alone gathers logits";
  EXPECT_EQ(together.reserve, alone.reserve);
  ask.device = Device::kGpu;
  const Need accelerator = need_of(shape, ask, 0);
  ask.sharing = 4;
  EXPECT_EQ(need_of(shape, ask, 0).weights, accelerator.weights);
}

TEST(Fit, a_cpu_in_the_loose_mode_keeps_rows_as_operands) {
  const Shape shape = public_shape("r1-distill-qwen-7b");
  const auto scratch = [&](bool deterministic, std::int64_t tokens) {
    return scratch_bytes(shape, {.deterministic = deterministic}, {.batch_tokens = tokens},
                         Device::kCpu);
  };
  const std::int64_t row = 2 * 18944;  // the widest, as which SwiGLU leaves them, too
  EXPECT_EQ(scratch(false, 100) - scratch(true, 100), 2 * 112 * row) << "whole tiles";
  EXPECT_EQ(scratch(false, 8192) - scratch(true, 8192), 512 * row + (16 << 20));
}

TEST(Fit, attention_on_each_rank_takes_weights_and_caches_as_many_times_the_tokens) {
  const Shape shape = public_shape("deepseek-v3");
  Ask ask = ask_for(8192, 8);
  ask.device = Device::kGpu;
  const Need together = need_of(shape, ask, 0);
  const Fit before = fit(shape, ask, 139 * kGiB);
  ask.cut.data_parallel_attention = true;
  const Need apart = need_of(shape, ask, 0);
  EXPECT_EQ(apart.cache_per_token, together.cache_per_token) << "of a token in each cache";
  // Seven eighths of q_b, kv_b and o, which have 172 million weights in each of 61 layers, in FP8
  // with a scale for each 128.
  EXPECT_NEAR(static_cast<double>(apart.weights - together.weights) / 1e9,
              61 * 0.172 * 7 / 8 * (1 + 4.0 / 128), 0.1);
  const Fit after = fit(shape, ask, 139 * kGiB);
  ASSERT_TRUE(before.fits && after.fits);
  EXPECT_EQ(before.kv_tokens, 8192);
  EXPECT_EQ(after.kv_tokens, 8 * 8192) << "one request in each";
  EXPECT_EQ(after.max_kv_tokens % (8 * kBlockTokens), 0);
  EXPECT_GT(after.max_kv_tokens, 4 * before.max_kv_tokens);
  // A number of tokens is that of all caches together.
  ask.kv_tokens = 100'000;
  const Fit given = fit(shape, ask, 139 * kGiB);
  EXPECT_EQ(given.kv_tokens, 8 * 12'544);
  EXPECT_EQ(given.need, given.parts.fixed() + 12'544 * given.parts.cache_per_token);
}

TEST(Fit, of_attention_on_each_rank_names_a_context_that_fits_one_cache) {
  const Shape shape = public_shape("deepseek-v3");
  Ask ask = ask_for(163'840, 8);
  ask.device = Device::kGpu;
  ask.cut.data_parallel_attention = true;
  const Fit found = fit(shape, ask, 115 * kGiB);
  ASSERT_FALSE(found.fits);
  ASSERT_GT(found.max_kv_tokens, 0);
  const std::int64_t each = found.max_kv_tokens / 8;
  EXPECT_THAT(sentence(shape, ask, found, kWords),
              HasSubstr("or set context to at most " + std::to_string(each)));
  ask.context = each;
  EXPECT_TRUE(fit(shape, ask, 115 * kGiB).fits);
}

// What the example gives the default model, with the worker's own defaults.
TEST(Fit, the_default_model_fits_into_little) {
  const Shape tiny = shape_of(config_of("models/deepseek-tiny/config.json"));
  EXPECT_GE(fit(tiny, ask_for(2048), 1 * kGiB).max_kv_tokens, 16 * 2048);
  EXPECT_TRUE(fit(tiny, ask_for(2048), 192 * kMiB).fits);
  EXPECT_FALSE(fit(tiny, ask_for(2048), 96 * kMiB).fits);
}

// The largest shape that is read, and the largest numbers: no sum leaves its type.
TEST(Fit, absurd_numbers_stay_numbers) {
  auto json = public_config("deepseek-v3");
  for (const char* key : {"hidden_size", "intermediate_size", "moe_intermediate_size",
                          "kv_lora_rank", "q_lora_rank"}) {
    json[key] = 1 << 18;
  }
  for (const char* key : {"qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"})
    json[key] = 1 << 16;
  for (const char* key : {"num_attention_heads", "num_key_value_heads", "num_hidden_layers",
                          "n_routed_experts", "num_experts_per_tok"}) {
    json[key] = 1024;
  }
  json["n_shared_experts"] = 64;
  json["vocab_size"] = 1 << 22;
  json["max_position_embeddings"] = 1 << 24;
  json["torch_dtype"] = "float32";
  json.erase("quantization_config");
  const Shape shape = shape_of(json);
  Ask ask = ask_for(1 << 24, 8);
  ask.sharing = 8;
  ask.cut.deterministic = false;
  ask.cut.drafts = true;
  ask.kv_tokens = 1'000'000'000;
  ask.step = {.batch_tokens = 1 << 20, .sequences = 4096};
  for (const std::int64_t have : {std::int64_t{0}, std::numeric_limits<std::int64_t>::max() / 4}) {
    const Fit found = fit(shape, ask, have);
    EXPECT_GT(found.need, 0);
    EXPECT_FALSE(sentence(shape, ask, found, kWords).empty());
  }
}

TEST(Fit, counts_the_rows_that_a_cpu_makes_integers_of) {
  const Shape shape = public_shape("r1-distill-qwen-7b");
  const auto bytes = [&](int bits, std::int64_t tokens) {
    return operator_bytes(shape, {.weight_bits = bits}, {.batch_tokens = tokens}, Device::kCpu);
  };
  EXPECT_EQ(bytes(0, 512), 0);
  EXPECT_EQ(bytes(8, 512), 16 << 20) << "no more at a time";
  // Pieces of 18,944 inputs, and two for each segment that may be cut short.
  EXPECT_EQ(bytes(4, 1), std::int64_t{16} * (148 + 16) * (256 + 8));
}

TEST(Text, of_bytes) {
  EXPECT_EQ(bytes_text(0), "0 B");
  EXPECT_EQ(bytes_text(656), "656 B");
  EXPECT_EQ(bytes_text(1536), "1.5 KiB");
  EXPECT_EQ(bytes_text(80 * kGiB), "80.0 GiB");
}

}  // namespace
}  // namespace dsm::sizing
