#include "ctl/fit_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

#include "sizing/testing.h"

namespace dsm::ctl {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr std::int64_t kGiB = 1 << 30;

sizing::Shape shape_of(const std::string& model) {
  std::ifstream file("sizing/models/" + model + ".json");
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const auto shape = sizing::parse_shape(text, model);
  EXPECT_TRUE(shape) << shape.error().message;
  return shape.value_or(sizing::Shape{});
}

TEST(Fit, is_of_every_number_of_ranks_or_of_one) {
  FitCommand command;
  command.context = 8192;
  const Fitted all = fitted(shape_of("r1-distill-qwen-7b"), command, 12 * kGiB);
  ASSERT_THAT(all.ranks, SizeIs(4));
  EXPECT_FALSE(all.ranks[0].fit.fits);
  EXPECT_TRUE(all.ranks[1].fit.fits);
  EXPECT_TRUE(all.any_fits());
  const std::string text = fit_text(all, {});
  EXPECT_THAT(text, HasSubstr("qwen2  28 layers, requests of 8192 tokens\n|-- tensor 1  no    a"));
  EXPECT_THAT(text, HasSubstr("or set --tensor to 2"));
  EXPECT_THAT(text, HasSubstr("|-- tensor 2  fits  a pod of 1 rank needs "));
  EXPECT_THAT(text, HasSubstr("`-- tensor 8  num_attention_heads 28 does not divide by tensor 8"));
  command.tensor = 1;
  EXPECT_FALSE(fitted(shape_of("r1-distill-qwen-7b"), command, 12 * kGiB).any_fits());
}

TEST(Fit, without_a_context_it_is_the_models) {
  EXPECT_EQ(fitted(shape_of("deepseek-v2"), {}, kGiB).ranks[0].ask.context, 163840);
}

TEST(Fit, of_rounded_weights_needs_less) {
  const auto weights = [](int bits) {
    const FitCommand command{.tensor = 1, .weight_bits = bits};
    return fitted(shape_of("deepseek-llm-7b"), command, 16 * kGiB).ranks[0].fit.parts.weights;
  };
  EXPECT_LT(weights(8), weights(0) * 6 / 10);
  EXPECT_LT(weights(4), weights(0) * 4 / 10);
}

TEST(Fit, of_weights_in_integers_is_not_of_others) {
  auto config = sizing::testing::public_config("deepseek-llm-7b");
  config["quantization_config"] = {
      {"quant_method", "gptq"}, {"bits", 4}, {"group_size", 128}, {"sym", true}};
  const auto ranks = [&](int bits) {
    const FitCommand command{.tensor = 1, .weight_bits = bits};
    return fitted(sizing::testing::shape_of(config), command, 16 * kGiB).ranks[0];
  };
  // Where integers are asked for, embedding and head become INT8: a byte less each for most of
  // both.
  const std::int64_t spared = std::int64_t{2} * 102400 * 4096;
  const auto expect_tables_alone_rounded = [&](int bits) {
    const std::int64_t less = ranks(0).fit.parts.weights - ranks(bits).fit.parts.weights;
    EXPECT_LT(less, spared);
    EXPECT_GT(less, spared * 9 / 10);
  };
  EXPECT_TRUE(ranks(0).mistake.empty());
  expect_tables_alone_rounded(4);
  EXPECT_EQ(ranks(8).mistake,
            "the checkpoint's weights are integers of 4 bits already (quantization_config), and "
            "rounding twice is worse than once");
  config["quantization_config"] = {
      {"quant_method", "awq"}, {"bits", 4}, {"group_size", 128}, {"zero_point", true}};
  expect_tables_alone_rounded(8);
}

TEST(Fit, of_attention_on_each_rank_has_room_for_more_tokens) {
  FitCommand command{.gpu = true, .tensor = 8, .context = 4096};
  const auto tokens = [&](const char* model) {
    return fitted(shape_of(model), command, 139 * kGiB).ranks[0];
  };
  const std::int64_t together = tokens("deepseek-v3").fit.max_kv_tokens;
  command.data_parallel_attention = true;
  EXPECT_GT(tokens("deepseek-v3").fit.max_kv_tokens, 4 * together);
  EXPECT_THAT(tokens("r1-distill-llama-70b").mistake, HasSubstr("llama has KV heads"));
}

TEST(Fit, of_whole_experts_wants_a_model_that_has_some) {
  FitCommand command{.gpu = true, .tensor = 4, .context = 4096, .expert_parallel = true};
  const auto of = [&](const char* model) {
    return fitted(shape_of(model), command, 79 * kGiB).ranks[0];
  };
  EXPECT_TRUE(of("deepseek-v2-lite").mistake.empty());
  EXPECT_FALSE(of("deepseek-v2-lite").ask.cut.deterministic);
  EXPECT_EQ(of("r1-distill-llama-70b").mistake, "llama has no experts");
}

TEST(Fit, as_json_has_every_part) {
  FitCommand command{.gpu = true, .tensor = 8, .context = 4096, .kv_cache_dtype = "bf16"};
  const std::int64_t token = (2 * 512 + 64) * 2 * 61;
  const auto json = to_json(fitted(shape_of("deepseek-v3"), command, 139 * kGiB));
  const auto& eight = json["tensor"][0];
  EXPECT_EQ(json["modelType"], "deepseek_v3");
  EXPECT_EQ(eight["fits"], true);
  EXPECT_EQ(eight["cacheBytesPerToken"], token);
  EXPECT_EQ(eight["needBytes"].get<std::int64_t>(),
            eight["weightBytes"].get<std::int64_t>() + eight["scratchBytes"].get<std::int64_t>() +
                eight["reserveBytes"].get<std::int64_t>() + 4096 * token);
}

// What to change stands at the end of a sentence: a narrow terminal does not cut it off.
TEST(Fit, no_sentence_is_cut) {
  FitCommand command{.tensor = 1};
  const Fitted found = fitted(shape_of("r1-distill-qwen-7b"), command, 12 * kGiB);
  EXPECT_EQ(fit_text(found, {.width = 40}), fit_text(found, {}));
}

}  // namespace
}  // namespace dsm::ctl
