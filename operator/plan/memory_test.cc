// What is known of a model's memory before its pods are made.
#include "operator/plan/memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

#include "operator/api/reasons.h"
#include "operator/api/status.h"
#include "operator/plan/children.h"
#include "operator/plan/plan.h"

namespace dsm::plan {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

std::string config_of(const std::string& model) {
  std::ifstream file("sizing/models/" + model + ".json");
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

json spec_of(const std::string& model, const std::string& memory) {
  return {{"model", {{"uri", "pvc://models/m"}}},
          {"engine", {{"maxModelLen", 8192}}},
          {"template", {{"resources", {{"limits", {{"memory", memory}}}}}}},
          {"sizing", {{"modelConfig", config_of(model)}}}};
}

std::optional<MemoryCheck> check(const json& spec) {
  const auto parsed = api::parse_spec(spec);
  EXPECT_TRUE(parsed) << parsed.error().message;
  return memory_of(parsed.value());
}

TEST(Memory, is_enough_or_is_named_with_what_to_change) {
  const auto enough = check(spec_of("r1-distill-qwen-7b", "24Gi"));
  ASSERT_TRUE(enough);
  EXPECT_TRUE(enough->fits);
  EXPECT_THAT(enough->sentence, HasSubstr("of 24.0 GiB; there is room for a KV cache of "));
  const auto little = check(spec_of("r1-distill-qwen-7b", "12Gi"));
  ASSERT_TRUE(little);
  EXPECT_FALSE(little->fits);
  EXPECT_THAT(little->sentence,
              HasSubstr("and has 12.0 GiB. Raise spec.template.resources.limits.memory to 17Gi, or "
                        "set spec.parallelism.tensor to 2"));
}

TEST(Memory, every_field_that_takes_memory_counts) {
  json spec = spec_of("deepseek-v2-lite", "32Gi");
  const auto fits = [&](const json& change) {
    json changed = spec;
    changed.merge_patch(change);
    return check(changed)->fits;
  };
  EXPECT_FALSE(fits(json::object()));
  EXPECT_TRUE(fits({{"parallelism", {{"tensor", 2}}}}));
  // Two ranks of one pod share its memory.
  EXPECT_FALSE(fits({{"parallelism", {{"tensor", 2}, {"ranksPerPod", 2}}}}));
  spec["template"]["resources"]["limits"]["memory"] = "40Gi";
  EXPECT_TRUE(fits(json::object()));
  EXPECT_FALSE(fits({{"engine", {{"maxModelLen", nullptr}}}})) << "the model's own: 163840 tokens";
  EXPECT_FALSE(fits({{"engine", {{"kvCacheTokens", 1000000}}}}));
  EXPECT_FALSE(fits({{"engine", {{"maxNumBatchedTokens", 65536}}}}));
}

// With the text of the sentence, since a GPU's memory is chosen and not written.
TEST(Memory, of_gpus_is_that_of_each_one) {
  json spec = spec_of("r1-distill-qwen-7b", "1Gi");
  spec["accelerator"] = {{"resource", "nvidia.com/gpu"}};
  EXPECT_EQ(check(spec), std::nullopt) << "the limit of the pod is not a GPU's memory";
  spec["accelerator"]["memory"] = "24Gi";
  EXPECT_TRUE(check(spec)->fits);
  spec["accelerator"]["memory"] = "12Gi";
  const auto little = check(spec);
  ASSERT_TRUE(little);
  EXPECT_FALSE(little->fits);
  EXPECT_THAT(little->sentence, HasSubstr("each accelerator needs "));
  EXPECT_THAT(little->sentence, HasSubstr("Raise spec.accelerator.memory, by larger GPUs, to "));
  EXPECT_THAT(little->sentence, HasSubstr("or set spec.parallelism.tensor to 2"));
  // GPUs of one pod have their own memory.
  spec["parallelism"] = {{"tensor", 2}, {"ranksPerPod", 2}};
  EXPECT_TRUE(check(spec)->fits);
}

TEST(Memory, of_attention_on_each_rank_is_more_in_weights_and_none_in_cache) {
  json spec = spec_of("deepseek-v2-lite", "40Gi");
  spec["parallelism"] = {{"tensor", 4}};
  spec["engine"]["kvCacheTokens"] = 400'000;
  EXPECT_FALSE(check(spec)->fits) << "each rank caches all of them";
  spec["engine"]["dataParallelAttention"] = true;
  EXPECT_TRUE(check(spec)->fits) << "each rank caches a quarter";
  json other = spec_of("r1-distill-qwen-7b", "64Gi");
  other["parallelism"] = {{"tensor", 2}};
  other["engine"]["dataParallelAttention"] = true;
  const auto refused = check(other);
  ASSERT_TRUE(refused);
  EXPECT_FALSE(refused->fits);
  EXPECT_EQ(
      refused->sentence,
      "spec.engine.dataParallelAttention: it is for DeepSeek's latent attention; qwen2 has KV "
      "heads, which ranks divide between them; remove it");
}

TEST(Memory, of_whole_experts_wants_experts_to_share_out) {
  json spec = spec_of("deepseek-v2-lite", "64Gi");
  spec["parallelism"] = {{"tensor", 4}};
  spec["engine"] = {{"expertParallel", true}, {"deterministic", false}};
  EXPECT_TRUE(check(spec)->fits);
  json other = spec_of("r1-distill-qwen-7b", "64Gi");
  other["parallelism"] = {{"tensor", 2}};
  other["engine"] = {{"expertParallel", true}, {"deterministic", false}};
  const auto refused = check(other);
  ASSERT_TRUE(refused);
  EXPECT_FALSE(refused->fits);
  EXPECT_EQ(refused->sentence, "spec.engine.expertParallel: qwen2 has no experts; remove it");
}

TEST(Memory, of_rounded_weights_is_less) {
  json spec = spec_of("r1-distill-qwen-7b", "12Gi");
  EXPECT_FALSE(check(spec)->fits);
  for (const char* quantization : {"INT8", "INT4"}) {
    spec["model"]["quantization"] = quantization;
    EXPECT_TRUE(check(spec)->fits) << quantization;
  }
}

TEST(Memory, of_weights_in_integers_is_that_of_rounded_ones) {
  json spec = spec_of("r1-distill-qwen-7b", "12Gi");
  json config = json::parse(spec["sizing"]["modelConfig"].get<std::string>());
  config["quantization_config"] = {
      {"quant_method", "gptq"}, {"bits", 4}, {"group_size", 128}, {"sym", true}};
  spec["sizing"]["modelConfig"] = config.dump();
  EXPECT_TRUE(check(spec)->fits);
  spec["model"]["quantization"] = "INT8";
  EXPECT_FALSE(check(spec)->fits);
  EXPECT_EQ(check(spec)->sentence,
            "spec.model.quantization: the checkpoint's weights are integers of 4 bits already "
            "(quantization_config), and rounding twice is worse than once; use Auto");
  config["quantization_config"]["quant_method"] = "bitsandbytes";
  spec["sizing"]["modelConfig"] = config.dump();
  EXPECT_EQ(check(spec), std::nullopt) << "for the worker to say";
}

TEST(Memory, is_not_guessed_where_it_is_not_said) {
  json spec = spec_of("deepseek-v3", "1Gi");
  EXPECT_FALSE(check(spec)->fits);
  json other = spec;
  other.erase("sizing");
  EXPECT_EQ(check(other), std::nullopt);
  other = spec;
  other.erase("template");
  EXPECT_EQ(check(other), std::nullopt);
  other = spec;
  other["sizing"]["modelConfig"] = R"({"model_type": "deepseek_v9"})";
  EXPECT_EQ(check(other), std::nullopt);
}

TEST(Memory, a_model_that_cannot_be_cut_is_said) {
  json spec = spec_of("r1-distill-qwen-7b", "64Gi");
  spec["parallelism"]["tensor"] = 8;
  EXPECT_EQ(check(spec)->sentence,
            "spec.parallelism.tensor: num_attention_heads 28 does not divide by tensor 8");
}

TEST(Memory, a_broken_config_is_a_mistake_of_the_spec) {
  json spec = spec_of("deepseek-v3", "1Gi");
  spec["sizing"]["modelConfig"] = R"({"model_type": "llama"})";
  const auto parsed = api::parse_spec(spec);
  ASSERT_FALSE(parsed);
  EXPECT_EQ(parsed.error().message,
            "spec.sizing.modelConfig: is not the text of a config.json: field vocab_size is "
            "missing");
}

// No pod is made, and what serves goes on: its spec is that of its revision.
TEST(Memory, a_model_that_does_not_fit_begins_nothing_and_says_so) {
  Observed seen;
  seen.model = {{"metadata", {{"name", "m"}, {"namespace", "ns"}, {"uid", "u"}, {"generation", 1}}},
                {"spec", spec_of("r1-distill-qwen-7b", "12Gi")}};
  seen.now = from_rfc3339("2026-01-01T00:00:00Z");
  seen.config.worker_image = "worker:1";
  const Owner owner{"m", "ns", "u"};
  const auto spec = api::parse_spec(seen.model["spec"]);
  seen.children = {serving_service_json(owner, false), ranks_service_json(owner),
                   token_secret_json(owner, "t"),
                   revision_json(owner, {api::revision_of(*spec), *spec, "worker:1", 1})};
  const Plan none = plan(seen);
  EXPECT_THAT(none.create_pods, IsEmpty());
  const auto status = api::parse_status(none.status.value_or(json()));
  for (const auto type : {api::kReady, api::kStalled, api::kDegraded}) {
    const auto* condition = api::find_condition(status, type);
    ASSERT_NE(condition, nullptr) << type;
    EXPECT_EQ(condition->reason, api::kDoesNotFit) << type;
    EXPECT_THAT(condition->message, HasSubstr("limits.memory to 17Gi")) << type;
  }
  // The limit is part of the revision, the text of config.json is not.
  seen.model["spec"]["template"]["resources"]["limits"]["memory"] = "17Gi";
  const auto mended = api::parse_spec(seen.model["spec"]);
  seen.children.push_back(
      revision_json(owner, {api::revision_of(*mended), *mended, "worker:1", 2}));
  EXPECT_THAT(plan(seen).create_pods, SizeIs(1));
  api::Spec unsized = *mended;
  unsized.sizing = {};
  EXPECT_EQ(api::revision_of(unsized), api::revision_of(*mended));
}

}  // namespace
}  // namespace dsm::plan
