// Checkpoints whose weights are integers: which are accepted, and how others are refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "worker/model/config_fixture.h"

namespace dsm::model {
namespace {

using testing::Field;
using testing::HasSubstr;
using testing::Optional;

nlohmann::json with_gptq() {
  auto json = tiny();
  json["quantization_config"] = {{"quant_method", "gptq"},
                                 {"bits", 4},
                                 {"group_size", 128},
                                 {"sym", true},
                                 {"desc_act", false}};
  return json;
}

nlohmann::json with_compressed() {
  auto json = tiny();
  json["quantization_config"] = {
      {"quant_method", "compressed-tensors"},
      {"format", "pack-quantized"},
      {"ignore", {"lm_head", "re:.*gate$"}},
      {"config_groups",
       {{"group_0",
         {{"targets", {"Linear"}},
          {"weights", {{"num_bits", 4}, {"strategy", "group"}, {"group_size", 128}}}}}}}};
  return json;
}

std::optional<IntegerWeights> integers_of(const nlohmann::json& json) {
  const auto config = parse_model_config(json.dump(), "config.json");
  EXPECT_TRUE(config) << config.error().message;
  return config ? config->integers : std::nullopt;
}

TEST(IntegerConfig, AcceptsGptqThatIsSymmetricInGroupsOf128) {
  auto json = with_gptq();
  EXPECT_EQ(integers_of(json), (IntegerWeights{.layout = IntegerWeights::Layout::kGptq,
                                               .dtype = kernels::DType::kInt4,
                                               .group = 128,
                                               .stored_zero = 7}));
  EXPECT_FALSE(parse_model_config(json.dump(), "config.json")->quantization);
  auto& options = json["quantization_config"];
  options["bits"] = 8;
  options["checkpoint_format"] = "gptq_v2";
  options["group_size"] = -1;
  EXPECT_EQ(integers_of(json), (IntegerWeights{.layout = IntegerWeights::Layout::kGptq,
                                               .dtype = kernels::DType::kInt8,
                                               .group = 0,
                                               .stored_zero = 128}));
  options.erase("checkpoint_format");
  options["format"] = "gptq";
  EXPECT_THAT(integers_of(json), Optional(Field(&IntegerWeights::stored_zero, 127)));
}

nlohmann::json with_awq() {
  auto json = tiny();
  json["quantization_config"] = {{"quant_method", "awq"}, {"bits", 4},
                                 {"group_size", 128},     {"zero_point", true},
                                 {"version", "gemm"},     {"modules_to_not_convert", nullptr}};
  return json;
}

// Less its zero point a number of 4 bits needs 5.
TEST(IntegerConfig, ZeroPointsMakeInt8OfFourBits) {
  auto gptq = with_gptq();
  gptq["quantization_config"]["sym"] = false;
  IntegerWeights wanted{.layout = IntegerWeights::Layout::kGptq,
                        .dtype = kernels::DType::kInt8,
                        .group = 128,
                        .zeros = true,
                        .zeros_less_one = true};
  EXPECT_EQ(integers_of(gptq), wanted);
  EXPECT_EQ(wanted.bits(), 4);
  gptq["quantization_config"]["checkpoint_format"] = "gptq_v2";
  wanted.zeros_less_one = false;
  EXPECT_EQ(integers_of(gptq), wanted);
  auto compressed = with_compressed();
  compressed["quantization_config"]["config_groups"]["group_0"]["weights"]["symmetric"] = false;
  wanted.layout = IntegerWeights::Layout::kCompressedTensors;
  EXPECT_EQ(integers_of(compressed), wanted);
  wanted.layout = IntegerWeights::Layout::kAwq;
  auto awq = with_awq();
  EXPECT_EQ(integers_of(awq), wanted);
  awq["quantization_config"]["version"] = "GEMM";
  EXPECT_EQ(integers_of(awq), wanted);
}

TEST(IntegerConfig, RefusesAnotherAwqByItsOption) {
  const auto message = [](const char* key, const nlohmann::json& value) {
    auto json = with_awq();
    json["quantization_config"][key] = value;
    return message_of(json);
  };
  EXPECT_EQ(message("modules_to_not_convert", {"mlp.gate"}), "accepted");
  EXPECT_THAT(message("bits", 8),
              HasSubstr("option quantization_config.bits = 8 is not supported"));
  EXPECT_THAT(message("group_size", 64), HasSubstr("quantization_config.group_size = 64 is not "
                                                   "supported, only 128"));
  EXPECT_THAT(message("zero_point", false), HasSubstr("quantization_config.zero_point = false"));
  EXPECT_THAT(message("zero_point", nullptr), HasSubstr("quantization_config.zero_point"));
  EXPECT_THAT(message("version", "gemv"), HasSubstr("quantization_config.version = \"gemv\""));
}

TEST(IntegerConfig, RefusesAnotherGptqByItsOption) {
  const auto message = [](const char* key, const nlohmann::json& value) {
    auto json = with_gptq();
    json["quantization_config"][key] = value;
    return message_of(json);
  };
  auto eight = with_gptq();
  eight["quantization_config"]["bits"] = 8;
  eight["quantization_config"]["sym"] = false;
  EXPECT_THAT(message_of(eight),
              HasSubstr("option quantization_config.sym = false is not supported with 8 bits: a "
                        "number less its zero point would need 9"));
  EXPECT_EQ(message("true_sequential", true), "accepted");
  EXPECT_THAT(message("bits", 3), HasSubstr("option quantization_config.bits = 3 is not supported, "
                                            "only 4 or 8"));
  EXPECT_THAT(message("group_size", 32), HasSubstr("quantization_config.group_size = 32 is not "
                                                   "supported, only 128"));
  EXPECT_THAT(message("sym", nullptr), HasSubstr("field quantization_config.sym is missing"));
  EXPECT_THAT(message("desc_act", true),
              HasSubstr("option quantization_config.desc_act = true is not supported: inputs that "
                        "share a scale must stand together"));
  EXPECT_THAT(message("checkpoint_format", "marlin"), HasSubstr("checkpoint_format = \"marlin\""));
  EXPECT_THAT(message("is_marlin_format", true), HasSubstr("is_marlin_format = true"));
  EXPECT_THAT(message("pack_dtype", "int64"), HasSubstr("pack_dtype = \"int64\""));
  EXPECT_THAT(message("rotation", "hadamard"), HasSubstr("rotation is not supported"));
  EXPECT_THAT(message("quant_method", "bitsandbytes"),
              HasSubstr("quant_method = \"bitsandbytes\" is not supported, only fp8, "
                        "compressed-tensors, gptq, awq"));
}

TEST(IntegerConfig, AcceptsCompressedTensorsThatAreSymmetricInGroupsOf128) {
  auto json = with_compressed();
  IntegerWeights wanted{.layout = IntegerWeights::Layout::kCompressedTensors,
                        .dtype = kernels::DType::kInt4,
                        .group = 128};
  EXPECT_EQ(integers_of(json), wanted);
  auto& weights = json["quantization_config"]["config_groups"]["group_0"]["weights"];
  for (const nlohmann::json& order : {nlohmann::json("static"), nlohmann::json("weight"),
                                      nlohmann::json(false), nlohmann::json(nullptr)}) {
    weights["actorder"] = order;
    EXPECT_EQ(integers_of(json), wanted) << order;
  }
  weights.erase("strategy");
  EXPECT_EQ(integers_of(json), wanted);
  weights["num_bits"] = 8;
  weights["group_size"] = -1;
  wanted.dtype = kernels::DType::kInt8;
  wanted.group = 0;
  EXPECT_EQ(integers_of(json), wanted);
  weights["strategy"] = "channel";
  weights["group_size"] = nullptr;
  EXPECT_EQ(integers_of(json), wanted);
  auto& groups = json["quantization_config"]["config_groups"];
  groups["group_1"] = nlohmann::json(groups["group_0"]);
  EXPECT_EQ(integers_of(json), wanted) << "alike";
}

TEST(IntegerConfig, RefusesOtherCompressedTensorsByTheirOption) {
  const auto message = [](const char* path, const nlohmann::json& value) {
    auto json = with_compressed();
    json["quantization_config"][nlohmann::json::json_pointer(path)] = value;
    return message_of(json);
  };
  const std::string group = "/config_groups/group_0/";
  const auto weights = [&](const char* key, const nlohmann::json& value) {
    return message((group + "weights/" + key).c_str(), value);
  };
  const std::string name = "quantization_config.config_groups.group_0.weights.";
  EXPECT_EQ(message("/quantization_status", "compressed"), "accepted");
  EXPECT_EQ(message("/sparsity_config", nlohmann::json::object()), "accepted");
  EXPECT_THAT(message("/format", "int-quantized"), HasSubstr("format = \"int-quantized\""));
  EXPECT_THAT(message("/kv_cache_scheme", {{"num_bits", 8}}),
              HasSubstr("quantization_config.kv_cache_scheme is not supported"));
  EXPECT_THAT(message("/transform_config", {{"a", 1}}), HasSubstr("transform_config"));
  EXPECT_THAT(message("/sparsity_config", {{"format", "sparse-24-bitmask"}}),
              HasSubstr("sparsity_config.format = \"sparse-24-bitmask\""));
  EXPECT_THAT(message("/config_groups", nlohmann::json::object()),
              HasSubstr("config_groups is not an object of 1 to 64 groups"));
  EXPECT_THAT(
      message((group + "input_activations").c_str(), {{"num_bits", 8}}),
      HasSubstr("group_0.input_activations is not supported: only weights may be integers"));
  EXPECT_THAT(message((group + "weights").c_str(), nullptr), HasSubstr("weights is missing"));
  EXPECT_THAT(weights("num_bits", 3),
              HasSubstr(name + "num_bits = 3 is not supported, only 4 or 8"));
  EXPECT_THAT(weights("type", "float"), HasSubstr(name + "type = \"float\""));
  auto eight = with_compressed();
  auto& of_eight = eight["quantization_config"]["config_groups"]["group_0"]["weights"];
  of_eight["num_bits"] = 8;
  of_eight["symmetric"] = false;
  EXPECT_THAT(message_of(eight),
              HasSubstr(name + "symmetric = false is not supported with 8 bits"));
  EXPECT_THAT(weights("group_size", 32), HasSubstr(name + "group_size = 32 is not supported, only "
                                                          "128"));
  EXPECT_THAT(weights("strategy", "tensor"), HasSubstr(name + "strategy = \"tensor\""));
  EXPECT_THAT(weights("strategy", "channel"), HasSubstr(name + "group_size is for strategy group"));
  EXPECT_THAT(weights("dynamic", true), HasSubstr(name + "dynamic = true"));
  for (const nlohmann::json& order :
       {nlohmann::json("group"), nlohmann::json("dynamic"), nlohmann::json(true)}) {
    EXPECT_THAT(weights("actorder", order),
                HasSubstr(name + "actorder = " + order.dump() +
                          " is not supported: inputs that share a scale must stand together"));
  }
  EXPECT_THAT(weights("actorder", 3), HasSubstr(name + "actorder is no known order"));
  auto json = with_compressed();
  auto& groups = json["quantization_config"]["config_groups"];
  groups["group_1"] = nlohmann::json(groups["group_0"]);
  groups["group_1"]["weights"]["num_bits"] = 8;
  EXPECT_THAT(message_of(json), HasSubstr("config_groups with several kinds of weights"));
}

}  // namespace
}  // namespace dsm::model
