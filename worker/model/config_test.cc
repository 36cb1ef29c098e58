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
  ASSERT_TRUE(config->yarn);
  EXPECT_DOUBLE_EQ(config->yarn->factor, 4);
  EXPECT_EQ(config->yarn->original_max_position, 512);
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
  json["q_lora_rank"] = nullptr;
  EXPECT_THAT(message_of(json), HasSubstr("q_lora_rank"));
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
}

}  // namespace
}  // namespace dsm::model
