#include "worker/model/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

namespace dsm::model {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

nlohmann::json tiny() {
  std::ifstream file("models/deepseek-tiny/config.json");
  return nlohmann::json::parse(file);
}

nlohmann::json family(const std::string& name) {
  std::ifstream file("tests/goldens/families/" + name + "/config.json");
  return nlohmann::json::parse(file);
}

std::string message_of(const nlohmann::json& json) {
  const auto config = parse_model_config(json.dump(), "config.json");
  return config ? "accepted" : config.error().message;
}

TEST(ModelConfig, ReadsTheDefaultModel) {
  const auto config = load_model_config("models/deepseek-tiny");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->hidden_size, 256);
  EXPECT_EQ(config->num_layers, 4);
  EXPECT_EQ(config->first_dense_layers, 1);
  EXPECT_EQ(config->kv_lora_rank, 128);
  EXPECT_EQ(config->qk_head_dim(), 64);
  EXPECT_EQ(config->num_groups, 4);
  EXPECT_DOUBLE_EQ(config->routed_scale, 2.5);
  ASSERT_TRUE(config->rope.yarn);
  EXPECT_DOUBLE_EQ(config->rope.yarn->factor, 4);
  EXPECT_EQ(config->rope.yarn->original_max_position, 512);
  EXPECT_EQ(config->max_positions, 2048);
  EXPECT_THAT(config->eos_tokens, ElementsAre(1));
}

TEST(ModelConfig, RefusesAnUnknownArchitectureByName) {
  auto json = tiny();
  json["model_type"] = "deepseek_v4";
  EXPECT_THAT(message_of(json), HasSubstr("model_type = \"deepseek_v4\" is not supported"));
}

TEST(ModelConfig, RefusesAnOptionThatTheGraphDoesNotHave) {
  auto json = tiny();
  json["scoring_func"] = "softmax";
  EXPECT_THAT(message_of(json), HasSubstr("scoring_func = \"softmax\""));
  json = tiny();
  json["quantization_config"] = {{"quant_method", "fp8"}};
  EXPECT_THAT(message_of(json), HasSubstr("quantization_config"));
  json = tiny();
  json["rope_scaling"]["type"] = "linear";
  EXPECT_THAT(message_of(json), HasSubstr("rope_scaling.type = \"linear\""));
  json = tiny();
  json["rope_scaling"]["attention_factor"] = 1.2;
  EXPECT_THAT(message_of(json), HasSubstr("rope_scaling.attention_factor"));
  json = tiny();
  json["architectures"] = {"DeepseekV2ForCausalLM"};
  EXPECT_THAT(message_of(json), HasSubstr("only [\"DeepseekV3ForCausalLM\"]"));
}

TEST(ModelConfig, DeepseekV3MayHaveNoQueryLatent) {
  auto json = tiny();
  json["q_lora_rank"] = nullptr;
  const auto config = parse_model_config(json.dump(), "config.json");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->q_lora_rank, 0);
}

TEST(ModelConfig, ReadsLlama) {
  const auto config = load_model_config("tests/goldens/families/llama");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->attention, AttentionKind::kGrouped);
  EXPECT_EQ(config->num_kv_heads, 2);
  EXPECT_EQ(config->qk_head_dim(), 16);
  EXPECT_FALSE(config->qkv_bias);
  EXPECT_TRUE(config->tied_embeddings);
  EXPECT_FALSE(config->has_experts(2));
  EXPECT_TRUE(config->rope.halves);
  EXPECT_DOUBLE_EQ(config->rope.theta, 500000);
  ASSERT_TRUE(config->rope.llama3);
  EXPECT_DOUBLE_EQ(config->rope.llama3->high_freq_factor, 4);
  EXPECT_THAT(config->eos_tokens, ElementsAre(1, 2));
}

TEST(ModelConfig, LlamaWithoutHeadDimOrKvHeadsHasOneOfEachPerQueryHead) {
  auto json = family("llama");
  json.erase("head_dim");
  json.erase("num_key_value_heads");
  json.erase("rope_parameters");
  json["hidden_size"] = 128;
  json["rope_theta"] = 10000.0;
  auto config = *parse_model_config(json.dump(), "config.json");
  EXPECT_EQ(config.qk_head_dim(), 16);
  EXPECT_EQ(config.num_kv_heads, 8);
  EXPECT_FALSE(config.rope.llama3);
  json["rope_scaling"] = {{"type", "linear"}, {"factor", 4.0}};
  EXPECT_DOUBLE_EQ(parse_model_config(json.dump(), "config.json")->rope.linear_factor, 4);
  json["rope_scaling"] = {{"type", "dynamic"}, {"factor", 4.0}};
  EXPECT_THAT(message_of(json), HasSubstr("rope_scaling.type = \"dynamic\" is not supported, "
                                          "only default, linear, llama3"));
  json["rope_scaling"] = {{"rope_type", "default"}};
  EXPECT_EQ(message_of(json), "accepted");
  json["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 1e4}};
  EXPECT_THAT(message_of(json), HasSubstr("both rope_parameters and rope_scaling"));
}

TEST(ModelConfig, LlamaWithBiasesIsRefused) {
  for (const char* option : {"attention_bias", "mlp_bias"}) {
    auto json = family("llama");
    json[option] = true;
    EXPECT_THAT(message_of(json), HasSubstr(std::string(option) + " = true is not supported"));
  }
}

TEST(ModelConfig, ReadsQwen2AndRefusesASlidingWindowThatIsUsed) {
  auto json = family("qwen2");
  const auto config = parse_model_config(json.dump(), "config.json");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_TRUE(config->qkv_bias);
  EXPECT_EQ(config->num_heads / config->num_kv_heads, 7);
  json["use_sliding_window"] = true;
  EXPECT_THAT(message_of(json), HasSubstr("use_sliding_window"));
  json["max_window_layers"] = json["num_hidden_layers"];  // no layer has it
  EXPECT_EQ(message_of(json), "accepted");
  json["layer_types"] = {"full_attention", "sliding_attention"};
  EXPECT_THAT(message_of(json), HasSubstr("layer_types with \"sliding_attention\""));
}

TEST(ModelConfig, ReadsQwen3WithTheYarnOfR1) {
  auto json = family("qwen3");
  auto config = parse_model_config(json.dump(), "config.json");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_TRUE(config->head_norms);
  EXPECT_FALSE(config->qkv_bias);
  ASSERT_TRUE(config->rope.yarn);
  EXPECT_EQ(config->rope.yarn->beta_fast, 32);
  EXPECT_EQ(config->rope.yarn->mscale, 1);
  EXPECT_EQ(config->rope.yarn->attention_factor, 0.8782488562869419);
  json["rope_scaling"].erase("attn_factor");
  json["rope_scaling"]["attention_factor"] = 1.5;
  config = parse_model_config(json.dump(), "config.json");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->rope.yarn->mscale, 0) << "no temperature but what is said";
  EXPECT_EQ(config->rope.yarn->attention_factor, 1.5);
  json["rope_scaling"]["mscale"] = 1.0;
  EXPECT_THAT(message_of(json), HasSubstr("rope_scaling.mscale"));
  json.erase("rope_scaling");
  EXPECT_EQ(message_of(json), "accepted");
  json["attention_bias"] = true;
  EXPECT_THAT(message_of(json), HasSubstr("attention_bias = true is not supported"));
}

TEST(ModelConfig, ReadsDeepseekV2) {
  auto json = family("deepseek_v2");
  auto config = *parse_model_config(json.dump(), "config.json");
  EXPECT_EQ(config.router, RouterKind::kSoftmax);
  EXPECT_EQ(config.num_groups, 4);
  EXPECT_DOUBLE_EQ(config.routed_scale, 4);
  // This family's weights are normalised or scaled, never both.
  json["norm_topk_prob"] = true;
  config = *parse_model_config(json.dump(), "config.json");
  EXPECT_TRUE(config.normalise_topk);
  EXPECT_DOUBLE_EQ(config.routed_scale, 1);
  // Greedy does not look at groups.
  json["topk_method"] = "greedy";
  json["n_group"] = nullptr;
  EXPECT_EQ(parse_model_config(json.dump(), "config.json")->num_groups, 1);
  json["topk_method"] = "noaux_tc";
  EXPECT_THAT(message_of(json), HasSubstr("topk_method = \"noaux_tc\" is not supported"));
  json = family("deepseek_v2");
  json["moe_layer_freq"] = 2;
  config = *parse_model_config(json.dump(), "config.json");
  EXPECT_FALSE(config.has_experts(1));
  EXPECT_TRUE(config.has_experts(2));
}

TEST(ModelConfig, ReadsDeepseekV32WithItsIndexer) {
  const auto good = family("deepseek_v32");
  const auto config = parse_model_config(good.dump(), "config.json");
  ASSERT_TRUE(config) << config.error().message;
  ASSERT_TRUE(config->indexer);
  EXPECT_EQ(config->indexer->heads, 20);
  EXPECT_EQ(config->indexer->head_dim, 48);
  EXPECT_EQ(config->indexer->top_k, 50);
  EXPECT_EQ(config->router, RouterKind::kSigmoidBias);
  EXPECT_FALSE(load_model_config("tests/goldens/families/deepseek_v3")->indexer);
  const auto message = [&](const char* key, const nlohmann::json& value) {
    auto json = good;
    json[key] = value;
    return message_of(json);
  };
  EXPECT_THAT(message("index_topk", nullptr), HasSubstr("field index_topk is missing"));
  EXPECT_THAT(message("index_topk", 0), HasSubstr("index_topk is 0"));
  EXPECT_THAT(message("index_n_heads", 65), HasSubstr("index_n_heads is 65, outside 1..64"));
  EXPECT_THAT(message("index_head_dim", 40),
              HasSubstr("index_head_dim 40 is not a multiple of 16"));
  EXPECT_THAT(message("index_head_dim", 8), HasSubstr("index_head_dim is 8, outside 16..256"));
  EXPECT_THAT(message("q_lora_rank", nullptr), HasSubstr("deepseek_v32 needs q_lora_rank"));
  EXPECT_THAT(message("index_topk_freq", 4), HasSubstr("option index_topk_freq is not supported"));
  EXPECT_THAT(message("indexer_rope_interleave", true), HasSubstr("indexer_rope_interleave"));
}

TEST(ModelConfig, AcceptsFp8InBlocks) {
  auto json = tiny();
  json["quantization_config"] = {{"quant_method", "fp8"},
                                 {"fmt", "e4m3"},
                                 {"weight_block_size", {128, 128}},
                                 {"activation_scheme", "dynamic"}};
  auto config = parse_model_config(json.dump(), "config.json");
  ASSERT_TRUE(config) << config.error().message;
  ASSERT_TRUE(config->quantization);
  EXPECT_EQ(config->quantization->rows, 128);
  EXPECT_FALSE(config->quantization->power_of_two_scales);
  json["quantization_config"]["scale_fmt"] = "ue8m0";
  config = parse_model_config(json.dump(), "config.json");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_TRUE(config->quantization->power_of_two_scales);
  json.erase("quantization_config");
  EXPECT_FALSE(parse_model_config(json.dump(), "config.json")->quantization);
}

TEST(ModelConfig, RefusesAnotherQuantizationByItsOption) {
  const nlohmann::json good = {
      {"quant_method", "fp8"}, {"fmt", "e4m3"}, {"weight_block_size", {128, 128}}};
  const auto message = [&](const char* key, const nlohmann::json& value) {
    auto json = tiny();
    json["quantization_config"] = good;
    json["quantization_config"][key] = value;
    return message_of(json);
  };
  EXPECT_EQ(message("fmt", "e4m3"), "accepted");
  EXPECT_THAT(message("quant_method", "quip"),
              HasSubstr("option quantization_config.quant_method = \"quip\" is not supported"));
  EXPECT_THAT(message("fmt", "e5m2"), HasSubstr("quantization_config.fmt"));
  EXPECT_THAT(message("weight_block_size", {64, 64}), HasSubstr("weight_block_size = [64,64]"));
  EXPECT_THAT(message("weight_block_size", nullptr), HasSubstr("weight_block_size is missing"));
  EXPECT_THAT(message("activation_scheme", "static"), HasSubstr("activation_scheme"));
  EXPECT_THAT(message("scale_fmt", "other"), HasSubstr("scale_fmt"));
}

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

TEST(ModelConfig, AcceptsGptqThatIsSymmetricInGroupsOf128) {
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
  EXPECT_EQ(integers_of(json)->stored_zero, 127);
}

nlohmann::json with_awq() {
  auto json = tiny();
  json["quantization_config"] = {{"quant_method", "awq"}, {"bits", 4},
                                 {"group_size", 128},     {"zero_point", true},
                                 {"version", "gemm"},     {"modules_to_not_convert", nullptr}};
  return json;
}

// Less its zero point a number of 4 bits needs 5.
TEST(ModelConfig, ZeroPointsMakeInt8OfFourBits) {
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

TEST(ModelConfig, RefusesAnotherAwqByItsOption) {
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

TEST(ModelConfig, RefusesAnotherGptqByItsOption) {
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

TEST(ModelConfig, AcceptsCompressedTensorsThatAreSymmetricInGroupsOf128) {
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

TEST(ModelConfig, RefusesOtherCompressedTensorsByTheirOption) {
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

TEST(ModelConfig, NamesTheMissingField) {
  for (const char* field :
       {"hidden_size", "rope_theta", "n_group", "norm_topk_prob", "rms_norm_eps"}) {
    auto json = tiny();
    json.erase(field);
    EXPECT_THAT(message_of(json), HasSubstr(std::string("field ") + field + " is missing"));
  }
}

TEST(ModelConfig, RefusesNumbersThatCannotBe) {
  auto json = tiny();
  json["n_group"] = 3;
  EXPECT_THAT(message_of(json), HasSubstr("n_routed_experts 8 does not divide into n_group 3"));
  json = tiny();
  json["num_experts_per_tok"] = 5;
  EXPECT_THAT(message_of(json), HasSubstr("num_experts_per_tok 5 exceeds the 4 experts"));
  json = tiny();
  json["hidden_size"] = -1;
  EXPECT_THAT(message_of(json), HasSubstr("hidden_size is -1"));
  json = tiny();
  json["hidden_size"] = "256";
  EXPECT_THAT(message_of(json), HasSubstr("hidden_size is not an integer"));
}

TEST(ModelConfig, SaysThatBrokenJsonIsBroken) {
  const auto config = parse_model_config("{\"model_type\": ", "dir/config.json");
  ASSERT_FALSE(config);
  EXPECT_EQ(config.error().kind, ErrorKind::kInvalid);
  EXPECT_THAT(config.error().message, HasSubstr("dir/config.json: "));
}

TEST(ModelConfig, TensorParallelMustDivideHeadsVocabularyAndWidths) {
  auto json = tiny();
  auto config = *parse_model_config(json.dump(), "config.json");
  for (const int ranks : {1, 2, 4, 8}) EXPECT_TRUE(check_tensor_parallel(config, ranks));
  for (const int ranks : {0, 3, 16}) EXPECT_FALSE(check_tensor_parallel(config, ranks));
  config.num_heads = 6;
  EXPECT_THAT(check_tensor_parallel(config, 4).error().message,
              HasSubstr("num_attention_heads 6 does not divide by tensor parallel size 4"));
  config.num_heads = 24;
  config.num_kv_heads = 3;
  EXPECT_THAT(check_tensor_parallel(config, 2).error().message,
              HasSubstr("num_key_value_heads 3 and tensor parallel size 2 do not fit"));
}

TEST(ModelConfig, SequencesAreSharedOutWhereRanksWouldHoldTheSameCache) {
  auto config = *parse_model_config(tiny().dump(), "config.json");
  EXPECT_TRUE(check_data_parallel_attention(config));
  config.attention = AttentionKind::kGrouped;
  EXPECT_THAT(check_data_parallel_attention(config).error().message,
              HasSubstr("it is for latent attention"));
}

TEST(ModelConfig, ExpertsAreSharedOutInEqualNumbersInTheLooseMode) {
  auto config = *parse_model_config(tiny().dump(), "config.json");
  ASSERT_EQ(config.num_experts % 4, 0);
  EXPECT_TRUE(check_expert_parallel(config, 4, false));
  EXPECT_THAT(check_expert_parallel(config, 4, true).error().message,
              HasSubstr("--deterministic false"));
  config.num_experts = 6;
  EXPECT_THAT(check_expert_parallel(config, 4, false).error().message,
              HasSubstr("n_routed_experts 6 does not divide by tensor parallel size 4"));
  config.num_experts = 0;
  EXPECT_THAT(check_expert_parallel(config, 4, false).error().message, HasSubstr("has no experts"));
}

}  // namespace
}  // namespace dsm::model
