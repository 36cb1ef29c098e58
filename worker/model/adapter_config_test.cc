// adapter_config.json: what is read, and that nothing is ignored which would change the numbers.
#include "worker/model/adapter_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

namespace dsm::model {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// As PEFT 0.18 writes it, shortened.
json written() {
  return {{"alpha_pattern", json::object()},
          {"alora_invocation_tokens", nullptr},
          {"base_model_name_or_path", "somewhere"},
          {"bias", "none"},
          {"exclude_modules", nullptr},
          {"fan_in_fan_out", false},
          {"inference_mode", true},
          {"init_lora_weights", true},
          {"layers_to_transform", nullptr},
          {"loftq_config", json::object()},
          {"lora_alpha", 16},
          {"lora_bias", false},
          {"lora_dropout", 0.05},
          {"megatron_core", "megatron.core"},
          {"modules_to_save", nullptr},
          {"peft_type", "LORA"},
          {"qalora_group_size", 16},
          {"r", 8},
          {"rank_pattern", json::object()},
          {"target_modules", {"q_proj", "v_proj"}},
          {"target_parameters", nullptr},
          {"task_type", "CAUSAL_LM"},
          {"use_dora", false},
          {"use_rslora", false}};
}

json with(const char* key, const json& value) {
  json config = written();
  config[key] = value;
  return config;
}

std::string refusal(const json& config) {
  const auto read = parse_adapter_config(config.dump(), "adapter_config.json");
  return read ? "" : read.error().message;
}

TEST(AdapterConfig, ReadsRankScaleAndTargets) {
  const auto config = parse_adapter_config(written().dump(), "a");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->rank, 8);
  EXPECT_EQ(config->scale, 2.0);
  EXPECT_THAT(config->targets, ElementsAre("q_proj", "v_proj"));
}

TEST(AdapterConfig, RsloraDividesByTheRootOfTheRank) {
  const auto config = parse_adapter_config(with("use_rslora", true).dump(), "a");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->scale, 16 / std::sqrt(8.0));
}

TEST(AdapterConfig, AnExpressionForTargetsIsLeftToTheTensors) {
  const auto config = parse_adapter_config(with("target_modules", "all-linear").dump(), "a");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_THAT(config->targets, IsEmpty());
}

TEST(AdapterConfig, WhatWouldChangeTheNumbersIsRefusedByItsName) {
  const std::pair<const char*, json> cases[] = {{"use_dora", true},
                                                {"modules_to_save", {"lm_head"}},
                                                {"rank_pattern", {{"q_proj", 4}}},
                                                {"alpha_pattern", {{"q_proj", 4}}},
                                                {"lora_bias", true},
                                                {"bias", "all"},
                                                {"fan_in_fan_out", true},
                                                {"layer_replication", {{0, 1}}},
                                                {"alora_invocation_tokens", {1, 2}},
                                                {"target_parameters", {"experts"}},
                                                {"trainable_token_indices", {5}},
                                                {"init_lora_weights", "pissa_niter_4"},
                                                {"something_of_next_year", 1},
                                                {"peft_type", "IA3"}};
  for (const auto& [key, value] : cases) {
    EXPECT_THAT(refusal(with(key, value)), HasSubstr(key));
  }
}

TEST(AdapterConfig, ABadValueIsRefusedWithItsField) {
  for (const char* key : {"r", "lora_alpha", "target_modules", "peft_type"}) {
    json config = written();
    config.erase(key);
    EXPECT_THAT(refusal(config), HasSubstr("adapter_config.json: field " + std::string(key)));
  }
  EXPECT_THAT(refusal(with("r", 0)), HasSubstr("field r is 0, outside 1..512"));
  EXPECT_THAT(refusal(with("r", 1 << 20)), HasSubstr("field r is"));
  EXPECT_THAT(refusal(with("lora_alpha", -1)), HasSubstr("field lora_alpha"));
  EXPECT_THAT(refusal(with("target_modules", json::array())), HasSubstr("field target_modules"));
  EXPECT_THAT(refusal(json::array()), HasSubstr("not a JSON object"));
  EXPECT_FALSE(parse_adapter_config("{", "a"));
}

}  // namespace
}  // namespace dsm::model
