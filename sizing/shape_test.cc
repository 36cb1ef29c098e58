#include "sizing/shape.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sizing/testing.h"

namespace dsm::sizing {
namespace {

using ::testing::HasSubstr;
using testing::public_config;
using testing::public_shape;
using testing::shape_of;

Error error_of(const nlohmann::json& config) {
  const auto shape = parse_shape(config.dump(), "config.json");
  return shape ? Error{} : shape.error();
}

TEST(Shape, reads_a_model_with_experts_and_latents) {
  const Shape v3 = public_shape("deepseek-v3");
  EXPECT_TRUE(v3.latent);
  EXPECT_TRUE(v3.fp8);
  EXPECT_TRUE(v3.router_bias);
  EXPECT_EQ(v3.layers, 61);
  EXPECT_EQ(v3.q_lora, 1536);
  EXPECT_EQ(v3.experts, 256);
  EXPECT_EQ(v3.mtp_layers, 1);
  EXPECT_FALSE(v3.has_experts(2));
  EXPECT_TRUE(v3.has_experts(3));
  EXPECT_EQ(public_shape("deepseek-v2-lite").q_lora, 0) << "null is none";
}

TEST(Shape, reads_a_dense_model) {
  const Shape qwen = public_shape("r1-distill-qwen-7b");
  EXPECT_FALSE(qwen.latent);
  EXPECT_TRUE(qwen.qkv_bias);
  EXPECT_EQ(qwen.head, 128);
  EXPECT_EQ(qwen.kv_heads, 4);
  EXPECT_FALSE(qwen.has_experts(0));
  auto json = public_config("llama-2-13b");
  json["head_dim"] = 64;
  json["torch_dtype"] = "float16";
  EXPECT_EQ(shape_of(json).head, 64);
  EXPECT_EQ(shape_of(json).stored, Stored::kF16);
  json["torch_dtype"] = "auto";
  EXPECT_EQ(shape_of(json).stored, Stored::kBf16);
}

TEST(Shape, a_mistake_names_the_field) {
  auto json = public_config("deepseek-v3");
  json.erase("kv_lora_rank");
  EXPECT_EQ(error_of(json).message, "config.json: field kv_lora_rank is missing");
  json["kv_lora_rank"] = "512";
  EXPECT_THAT(error_of(json).message, HasSubstr("kv_lora_rank is not an integer"));
  json["kv_lora_rank"] = 0;
  EXPECT_THAT(error_of(json).message, HasSubstr("kv_lora_rank is 0, outside 1.."));
  json["kv_lora_rank"] = 18446744073709551615ULL;
  EXPECT_THAT(error_of(json).message, HasSubstr("kv_lora_rank is 18446744073709551615, outside"));
  json = public_config("llama-2-13b");
  json["hidden_size"] = 16;
  EXPECT_THAT(error_of(json).message, HasSubstr("hidden_size / num_attention_heads, is 0"));
  for (const char* text : {"", "[]", "null", "{", "{\"model_type\": 7}", "{}"}) {
    const auto shape = parse_shape(text, "config.json");
    ASSERT_FALSE(shape) << text;
    EXPECT_EQ(shape.error().kind, ErrorKind::kInvalid) << text;
  }
}

// Another image may know it: that is not a mistake.
TEST(Shape, what_is_not_known_here_is_told_from_what_is_wrong) {
  auto json = public_config("deepseek-v3");
  json["model_type"] = "deepseek_v4";
  EXPECT_EQ(error_of(json).kind, ErrorKind::kNotFound);
  json = public_config("deepseek-v3");
  json["quantization_config"]["quant_method"] = "bitsandbytes";
  EXPECT_EQ(error_of(json).kind, ErrorKind::kNotFound);
}

TEST(Shape, is_cut_into_equal_parts_or_not_at_all) {
  const Shape qwen = public_shape("r1-distill-qwen-7b");
  EXPECT_TRUE(check_cut(qwen, 4));
  const auto eight = check_cut(qwen, 8);
  ASSERT_FALSE(eight);
  EXPECT_EQ(eight.error().message, "num_attention_heads 28 does not divide by tensor 8");
  Shape odd = qwen;
  odd.kv_heads = 7;
  EXPECT_THAT(check_cut(odd, 2).error().message, HasSubstr("num_key_value_heads 7 and tensor 2"));
}

}  // namespace
}  // namespace dsm::sizing
