#include "sizing/integers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sizing/fit.h"
#include "sizing/testing.h"

namespace dsm::sizing {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using testing::public_config;
using testing::shape_of;

json compressed(int bits, const json& ignore) {
  return {{"quant_method", "compressed-tensors"},
          {"format", "pack-quantized"},
          {"ignore", ignore},
          {"config_groups",
           {{"group_0",
             {{"targets", {"Linear"}},
              {"input_activations", nullptr},
              {"weights",
               {{"num_bits", bits},
                {"type", "int"},
                {"symmetric", true},
                {"strategy", "group"},
                {"actorder", "static"},
                {"group_size", 128}}}}}}}};
}
json gptq(int bits) {
  return {{"quant_method", "gptq"},
          {"bits", bits},
          {"group_size", 128},
          {"sym", true},
          {"desc_act", false}};
}
json awq() {
  return {{"quant_method", "awq"},
          {"bits", 4},
          {"group_size", 128},
          {"zero_point", true},
          {"version", "gemm"}};
}
json with(const std::string& model, const json& quantization) {
  json config = public_config(model);
  config["quantization_config"] = quantization;
  return config;
}
std::int64_t bytes(const json& config, WeightCut cut = {}) {
  return weight_bytes(shape_of(config), cut, Device::kGpu);
}

TEST(Integers, of_layers_are_all_but_what_is_left_out) {
  const json config =
      with("deepseek-v2-lite", compressed(4, {"lm_head", "re:.*mlp.gate$", "re:.*kv_b_proj",
                                              "model.layers.3.self_attn.o_proj"}));
  const Integers made = shape_of(config).integers;
  EXPECT_EQ(made.bits, 4);
  EXPECT_FALSE(made.head);
  EXPECT_TRUE(made.has(0, Matrix::kGate));
  EXPECT_FALSE(made.has(1, Matrix::kGate)) << "has experts";
  EXPECT_TRUE(made.has(1, Matrix::kExpertDown));
  EXPECT_TRUE(made.has(1, Matrix::kSharedUp));
  EXPECT_TRUE(made.has(1, Matrix::kQuery));
  EXPECT_TRUE(made.has(2, Matrix::kOutput));
  EXPECT_FALSE(made.has(3, Matrix::kOutput));
  EXPECT_FALSE(made.has(1, Matrix::kLatentUp));
  EXPECT_FALSE(made.has(1, Matrix::kRouter));
  EXPECT_FALSE(made.has(27, Matrix::kOutput)) << "past the last layer";
}

TEST(Integers, may_be_those_of_experts_alone) {
  json config = with("deepseek-v3", compressed(8, json::array()));
  config["quantization_config"]["config_groups"]["group_0"]["targets"] = {
      "re:.*mlp\\.experts\\.\\d+\\..*_proj$"};
  const Integers made = shape_of(config).integers;
  EXPECT_EQ(made.bits, 8);
  EXPECT_TRUE(made.has(3, Matrix::kExpertGate));
  EXPECT_FALSE(made.has(3, Matrix::kSharedGate));
  EXPECT_FALSE(made.has(3, Matrix::kQuery));
  EXPECT_FALSE(made.has(0, Matrix::kGate));
}

// The same bytes as weights that are rounded at load, where the same ones are; what a checkpoint
// leaves in BF16 is rounded where that is asked for.
TEST(Integers, take_what_rounded_weights_take) {
  for (const int bits : {4, 8}) {
    const WeightCut rounded{.tensor = 2, .weight_bits = bits};
    const json qwen = public_config("r1-distill-qwen-7b");
    EXPECT_EQ(bytes(with("r1-distill-qwen-7b", gptq(bits)), rounded), bytes(qwen, rounded));
    EXPECT_EQ(bytes(with("r1-distill-qwen-7b", compressed(bits, {"lm_head"})), rounded),
              bytes(qwen, rounded));
    // Of embedding and head, if not: 2 bytes a weight; 1, a word more and a scale for each 128.
    const std::int64_t row = 3584 * 2 - (3584 + 4 + 29 * 4);
    EXPECT_EQ(bytes(with("r1-distill-qwen-7b", gptq(bits)), {.tensor = 2}),
              bytes(qwen, rounded) + (152064 + 152064 / 2) * row);
    const json lite = public_config("deepseek-v2-lite");
    EXPECT_EQ(
        bytes(with("deepseek-v2-lite", compressed(bits, {"lm_head", "re:.*kv_b_proj"})), rounded),
        bytes(lite, rounded));
    // kv_b_proj becomes FP32: two more bytes for each of its weights.
    EXPECT_EQ(bytes(with("deepseek-v2-lite", gptq(bits)), {.weight_bits = bits}),
              bytes(lite, {.weight_bits = bits}) + std::int64_t{27} * 512 * 16 * (128 + 128) * 2);
  }
}

TEST(Integers, beside_weights_that_are_not_make_all_of_a_product_fp32) {
  const json config = with("r1-distill-qwen-7b", compressed(4, {"lm_head", "re:.*v_proj"}));
  const json none = with("r1-distill-qwen-7b", compressed(4, {"lm_head", "re:.*[qkv]_proj"}));
  EXPECT_EQ(bytes(config), bytes(none) + std::int64_t{28} * (28 + 2 * 4) * 128 * 3584 * 2);
  // Unless the others are rounded to the same.
  EXPECT_EQ(bytes(config, {.weight_bits = 4}), bytes(none, {.weight_bits = 4}));
}

TEST(Integers, with_zero_points_take_what_int8_takes) {
  json gptq_zeros = gptq(4);
  gptq_zeros["sym"] = false;
  json compressed_zeros = compressed(4, {"lm_head"});
  compressed_zeros["config_groups"]["group_0"]["weights"]["symmetric"] = false;
  for (const json& zeros : {gptq_zeros, compressed_zeros, awq()}) {
    const json config = with("r1-distill-qwen-7b", zeros);
    EXPECT_TRUE(shape_of(config).integers.zeros);
    const WeightCut rounded{.tensor = 2, .weight_bits = 8};
    EXPECT_EQ(bytes(config, rounded), bytes(public_config("r1-distill-qwen-7b"), rounded));
    EXPECT_TRUE(check_rounding(shape_of(config), 8));
    ASSERT_FALSE(check_rounding(shape_of(config), 4));
    EXPECT_THAT(check_rounding(shape_of(config), 4).error().message,
                HasSubstr("integers of 4 bits with zero points, which are 8 here, already"));
  }
}

TEST(Integers, of_awq_are_all_but_what_has_a_name_of_the_list) {
  json config = with("deepseek-v2-lite", awq());
  config["quantization_config"]["modules_to_not_convert"] = {"kv_b_proj", "layers.3.self_attn"};
  const Integers made = shape_of(config).integers;
  EXPECT_FALSE(made.has(1, Matrix::kLatentUp));
  EXPECT_FALSE(made.has(1, Matrix::kRouter));
  EXPECT_FALSE(made.has(3, Matrix::kOutput));
  EXPECT_TRUE(made.has(13, Matrix::kOutput));
  EXPECT_TRUE(made.has(3, Matrix::kExpertUp));
  EXPECT_FALSE(made.head);
}

TEST(Integers, are_not_rounded_again) {
  const Shape shape = shape_of(with("r1-distill-qwen-7b", gptq(4)));
  EXPECT_TRUE(check_rounding(shape, 0));
  EXPECT_TRUE(check_rounding(shape, 4));
  ASSERT_FALSE(check_rounding(shape, 8));
  EXPECT_THAT(check_rounding(shape, 8).error().message, HasSubstr("integers of 4 bits already"));
  EXPECT_TRUE(check_rounding(testing::public_shape("deepseek-v3"), 8));
}

TEST(Integers, of_an_unknown_kind_are_told_from_what_is_wrong) {
  const auto kind = [](const json& quantization) {
    const auto shape = parse_shape(with("r1-distill-qwen-7b", quantization).dump(), "config.json");
    return shape ? std::string("known") : shape.error().message;
  };
  EXPECT_EQ(kind(gptq(4)), "known");
  EXPECT_EQ(kind(compressed(8, json::array())), "known");
  EXPECT_EQ(
      kind({{"quant_method", "bitsandbytes"}}),
      "config.json: quantization_config has another method than fp8, compressed-tensors, gptq "
      "and awq, whose sizes are not known here");
  for (const auto& [key, value] : {std::pair<const char*, json>{"bits", 3},
                                   {"group_size", 64},
                                   {"sym", nullptr},
                                   {"desc_act", true},
                                   {"dynamic", {{"-:.*mlp", json::object()}}}}) {
    json other = gptq(4);
    other[key] = value;
    EXPECT_THAT(kind(other), HasSubstr("not known here")) << key;
  }
  for (const auto& [key, value] : {std::pair<const char*, json>{"num_bits", 2},
                                   {"type", "float"},
                                   {"symmetric", 0},
                                   {"strategy", "tensor"},
                                   {"group_size", 32},
                                   {"actorder", "group"}}) {
    json other = compressed(4, json::array());
    other["config_groups"]["group_0"]["weights"][key] = value;
    EXPECT_THAT(kind(other), HasSubstr("not known here")) << key;
  }
  for (const auto& [key, value] : {std::pair<const char*, json>{"bits", 8},
                                   {"group_size", 64},
                                   {"zero_point", false},
                                   {"version", "gemv"},
                                   {"modules_to_not_convert", "lm_head"},
                                   {"modules_to_not_convert", {"a("}}}) {
    json other = awq();
    other[key] = value;
    EXPECT_THAT(kind(other), HasSubstr("not known here")) << key;
  }
  json other_bits = gptq(8);
  other_bits["sym"] = false;
  EXPECT_THAT(kind(other_bits), HasSubstr("not known here")) << "would need 9";
  EXPECT_THAT(kind(compressed(4, {"re:(?!x)"})), HasSubstr("a list of modules"));
  EXPECT_THAT(kind(compressed(4, "lm_head")), HasSubstr("a list of modules"));
  const json long_ones(6, "re:" + std::string(500, 'a'));
  EXPECT_THAT(kind(compressed(4, long_ones)), HasSubstr("a list of modules")) << "for 28 layers";
  json other = compressed(4, json::array());
  other["config_groups"]["group_0"]["targets"] = {"Qwen2MLP"};
  EXPECT_THAT(kind(other), HasSubstr("a list of modules"));
  other["config_groups"] = 7;
  EXPECT_THAT(kind(other), HasSubstr("no groups"));
  EXPECT_THAT(kind(7), HasSubstr("another method"));
}

}  // namespace
}  // namespace dsm::sizing
