// Adapters in memory: how long they stay, how many there may be, and which files are refused.
#include "worker/model/adapter_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "tests/model/adapter_writer.h"

namespace dsm::model {
namespace {

using ::testing::HasSubstr;

constexpr int kRank = 4;

class AdapterStoreTest : public ::testing::Test {
 protected:
  static ModelConfig config_of(const std::string& family) {
    const auto config = load_model_config("tests/goldens/families/" + family);
    EXPECT_TRUE(config);
    return config.value_or(ModelConfig());
  }
  static TestTensors good() {
    return adapter_tensors(
        {{"model.layers.0.self_attn.q_proj", 128, 48}, {"model.layers.2.mlp.down_proj", 48, 96}},
        kRank, 1);
  }
  std::filesystem::path write(const TestTensors& tensors,
                              const nlohmann::json& config = adapter_config(kRank)) const {
    write_adapter(dir.path() / "a", config, tensors);
    return dir.path() / "a";
  }
  static Error error_of(AdapterStore& into, const std::filesystem::path& path) {
    const auto loaded = into.load("a", path);
    return loaded ? Error{.message = "it was loaded"} : loaded.error();
  }
  std::string refusal(const TestTensors& tensors,
                      const nlohmann::json& config = adapter_config(kRank)) {
    const Error error = error_of(store, write(tensors, config));
    EXPECT_EQ(error.kind, ErrorKind::kInvalid);
    return error.message;
  }

  TestDir dir;
  AdapterStore store{
      config_of("llama"),
      {.ranks = 4, .first_rank = 2, .local_ranks = 2, .max_adapters = 2, .max_rank = 8}};
};

TEST_F(AdapterStoreTest, WeightsAreThereForLocalRanksAsLongAsSomebodyHoldsThem) {
  auto adapter = store.load("sql", write(good()));
  ASSERT_TRUE(adapter) << adapter.error().message;
  EXPECT_EQ((*adapter)->id, 1);
  EXPECT_EQ((*adapter)->name, "sql");
  EXPECT_EQ(store.find(1, 1), nullptr);
  EXPECT_EQ(store.find(1, 4), nullptr);
  EXPECT_EQ(store.find(2, 2), nullptr);
  auto weights = store.find(1, 2);
  ASSERT_NE(weights, nullptr);
  EXPECT_NE(weights, store.find(1, 3));
  ASSERT_EQ(weights->layers.size(), 3U);
  // Two of eight query heads, one of two KV heads; no other linear of the layer.
  EXPECT_EQ(weights->layers[0].qkv.b.n, (2 + 2 * 1) * 16);
  EXPECT_EQ(weights->layers[0].qkv.a.n, kRank);
  EXPECT_EQ(weights->layers[0].output.a.count, 0);
  EXPECT_EQ(weights->layers[2].down.a.count, 2);
  EXPECT_EQ(weights->layers[2].gate_up.b.n, 0);

  *adapter = nullptr;
  EXPECT_EQ(store.size(), 1) << "a step under way holds it";
  weights = nullptr;
  EXPECT_EQ(store.size(), 0);
  EXPECT_EQ(store.find(1, 2), nullptr);
}

TEST_F(AdapterStoreTest, ANumberIsNeverUsedTwice) {
  const auto path = write(good());
  EXPECT_EQ((*store.load("sql", path))->id, 1);  // and let go of at once
  EXPECT_EQ((*store.load("sql", path))->id, 2);
}

TEST_F(AdapterStoreTest, ThereAreAtMostAsManyAsAllowedThoseStillInUseIncluded) {
  const auto path = write(good());
  auto first = store.load("a", path);
  const auto second = store.load("b", path);
  const Error full = error_of(store, path);
  EXPECT_EQ(full.kind, ErrorKind::kExhausted);
  EXPECT_THAT(full.message, HasSubstr("--max-loras"));
  *first = nullptr;
  EXPECT_TRUE(store.load("c", path));
}

TEST_F(AdapterStoreTest, FilesThatAreNotThereAreNotFound) {
  EXPECT_EQ(error_of(store, dir.path() / "nowhere").kind, ErrorKind::kNotFound);
  const auto path = write(good());
  std::filesystem::remove(path / "adapter_model.safetensors");
  const Error error = error_of(store, path);
  EXPECT_EQ(error.kind, ErrorKind::kNotFound);
  EXPECT_THAT(error.message, HasSubstr("adapter_model.safetensors"));
}

TEST_F(AdapterStoreTest, ARankBeyondTheLimitIsRefusedWithTheFlag) {
  EXPECT_THAT(refusal(good(), adapter_config(9)), HasSubstr("r is 9, more than --max-lora-rank 8"));
}

TEST_F(AdapterStoreTest, TensorsThatDoNotFitTheModelAreNamed) {
  std::mt19937 random(2);
  const auto refused_with = [&](const std::string& name, int rows, int columns) {
    TestTensors more = good();
    more[name] = random_f32(rows, columns, random, 1);
    return refusal(more);
  };
  const std::string self = "base_model.model.model.layers.0.self_attn.";
  EXPECT_THAT(refused_with(self + "q_proj.lora_B.weight", 64, kRank),
              HasSubstr("q_proj.lora_B.weight does not have the shape [128, 4]"));
  EXPECT_THAT(refused_with(self + "q_proj.lora_A.weight", 8, 48),
              HasSubstr("q_proj.lora_A.weight does not have the shape [4, 48]"));
  EXPECT_THAT(refused_with(self + "v_proj.lora_A.weight", kRank, 48),
              HasSubstr("v_proj.lora_B.weight is missing"));
  EXPECT_THAT(refused_with(self + "q_proj.lora_magnitude_vector", 128, 1),
              HasSubstr("lora_magnitude_vector is no part of a LoRA adapter"));
  EXPECT_THAT(refused_with("base_model.model.lm_head.lora_A.weight", kRank, 48),
              HasSubstr("lm_head.lora_A.weight belongs to a layer that cannot have an adapter"));
  EXPECT_THAT(refused_with("base_model.model.model.layers.3.mlp.up_proj.lora_A.weight", kRank, 48),
              HasSubstr("layers.3"));
  EXPECT_THAT(refusal({}), HasSubstr("holds no tensors"));
}

TEST_F(AdapterStoreTest, LayersThatTheGraphDoesNotHaveAsOneLinearAreNamed) {
  AdapterStore latent(config_of("deepseek_v3"), {.max_adapters = 1, .max_rank = 8});
  for (const char* module :
       {"self_attn.kv_b_proj", "mlp.gate", "mlp.experts.0.up_proj", "mlp.up_proj"}) {
    const std::string name = "model.layers.1." + std::string(module);
    const auto path = write(adapter_tensors({{name, 32, 32}}, kRank, 3));
    const Error error = error_of(latent, path);
    EXPECT_EQ(error.kind, ErrorKind::kInvalid);
    EXPECT_THAT(error.message, HasSubstr(name));
    EXPECT_THAT(error.message, HasSubstr("kv_a_proj_with_mqa"));
  }
}

TEST_F(AdapterStoreTest, ATargetWithoutTensorsIsAPartThatIsMissing) {
  nlohmann::json config = adapter_config(kRank);
  config["target_modules"] = {"q_proj", "down_proj", "up_proj"};
  EXPECT_THAT(refusal(good(), config), HasSubstr("has no tensors of up_proj"));
}

TEST_F(AdapterStoreTest, AWeightThatIsNotANumberIsRefused) {
  TestTensors tensors = good();
  const float infinite = std::numeric_limits<float>::infinity();
  std::memcpy(tensors["base_model.model.model.layers.2.mlp.down_proj.lora_A.weight"].bytes.data(),
              &infinite, sizeof infinite);
  EXPECT_THAT(refusal(tensors), HasSubstr("layers.2.mlp.down_proj is not a number"));
}

}  // namespace
}  // namespace dsm::model
