#include "worker/model/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "worker/model/config_fixture.h"

namespace dsm::model {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::Field;
using testing::HasSubstr;
using testing::Optional;

nlohmann::json family(const std::string& name) {
  std::ifstream file("tests/goldens/families/" + name + "/config.json");
  return nlohmann::json::parse(file);
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
  EXPECT_THAT(config->rope.yarn, Optional(AllOf(Field(&YarnConfig::factor, 4),
                                                Field(&YarnConfig::original_max_position, 512))));
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
  EXPECT_THAT(config->rope.llama3, Optional(Field(&Llama3RopeConfig::high_freq_factor, 4)));
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
  EXPECT_THAT(config->rope.yarn,
              Optional(AllOf(Field(&YarnConfig::beta_fast, 32), Field(&YarnConfig::mscale, 1),
                             Field(&YarnConfig::attention_factor, 0.8782488562869419))));
  json["rope_scaling"].erase("attn_factor");
  json["rope_scaling"]["attention_factor"] = 1.5;
  config = parse_model_config(json.dump(), "config.json");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_THAT(config->rope.yarn, Optional(AllOf(Field(&YarnConfig::mscale, 0),
                                                Field(&YarnConfig::attention_factor, 1.5))))
      << "no temperature but what is said";
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
  EXPECT_THAT(config->indexer,
              Optional(AllOf(Field(&IndexerConfig::heads, 20), Field(&IndexerConfig::head_dim, 48),
                             Field(&IndexerConfig::top_k, 50))));
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
  EXPECT_THAT(config->quantization, Optional(AllOf(Field(&Fp8Blocks::rows, 128),
                                                   Field(&Fp8Blocks::power_of_two_scales, false))));
  json["quantization_config"]["scale_fmt"] = "ue8m0";
  config = parse_model_config(json.dump(), "config.json");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_THAT(config->quantization, Optional(Field(&Fp8Blocks::power_of_two_scales, true)));
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
