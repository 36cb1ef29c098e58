// Wrong checkpoints: a file is refused with a sentence, or what it gives lies inside it.
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>

#include "tests/fuzz/mutate.h"
#include "worker/model/config.h"
#include "worker/model/packed_weights.h"
#include "worker/model/probe_file.h"
#include "worker/model/safetensors.h"

namespace dsm::model {
namespace {

using fuzz::mutate;
using fuzz::Random;

std::string with_length(const std::string& header, const std::string& data) {
  std::uint64_t size = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &size, 8);
  return bytes + header + data;
}

class SafetensorsFuzz : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directory(dir_); }
  void TearDown() override { std::filesystem::remove_all(dir_); }
  void write(const char* name, const std::string& bytes) {
    std::ofstream(dir_ / name, std::ios::binary | std::ios::trunc) << bytes;
  }
  std::filesystem::path dir_ = std::filesystem::temp_directory_path() /
                               ("dsm-fuzz-" + std::to_string(std::random_device{}()));
};

TEST_F(SafetensorsFuzz, ATensorOfABrokenFileLiesInsideTheFile) {
  std::string header =
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},)"
      R"("b":{"dtype":"BF16","shape":[4],"data_offsets":[16,24]}})";
  std::string data(24, 'x');
  Random random(1);
  int opened = 0;
  for (int i = 0; i < 3000; ++i) {
    // The header with a length that fits, or the whole file with anything changed.
    write("model.safetensors", random.chance(70) ? with_length(mutate(header, random), data)
                                                 : mutate(with_length(header, data), random));
    Result<SafetensorsFile> file = SafetensorsFile::open(dir_ / "model.safetensors");
    if (!file) {
      EXPECT_FALSE(file.error().message.empty());
      continue;
    }
    ++opened;
    unsigned sum = 0;  // the sanitizer sees a read outside of the mapping
    for (const auto& [name, view] : file->tensors()) {
      for (std::byte byte : view.bytes) sum += std::to_integer<unsigned>(byte);
      for (std::int64_t extent : view.shape) EXPECT_GE(extent, 0);
    }
    EXPECT_LE(sum, 24U * 255U);
  }
  EXPECT_GT(opened, 50);
}

TEST_F(SafetensorsFuzz, ABrokenIndexIsRefusedOrNamesFilesThatAreThere) {
  write("a.safetensors",
        with_length(R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "aaaa"));
  std::string index = R"({"metadata":{"total_size":4},"weight_map":{"x":"a.safetensors"}})";
  Random random(2);
  int opened = 0;
  for (int i = 0; i < 1500; ++i) {
    write("model.safetensors.index.json", mutate(index, random));
    Result<Checkpoint> checkpoint = Checkpoint::open(dir_);
    if (!checkpoint) {
      EXPECT_FALSE(checkpoint.error().message.empty());
      continue;
    }
    ++opened;
    if (auto view = checkpoint->get("x", {1})) {
      EXPECT_EQ(view->bytes.size(), 4U);
    }
  }
  EXPECT_GT(opened, 20);
}

// Of two weights, each of 8 outputs and 16 inputs.
TEST_F(SafetensorsFuzz, AWeightInIntegersIsRefusedOrReadInsideItsTensors) {
  const std::string header =
      R"({"a.qweight":{"dtype":"I32","shape":[2,8],"data_offsets":[0,64]},)"
      R"("a.qzeros":{"dtype":"I32","shape":[1,1],"data_offsets":[64,68]},)"
      R"("a.scales":{"dtype":"F16","shape":[1,8],"data_offsets":[68,84]},)"
      R"("a.g_idx":{"dtype":"I32","shape":[16],"data_offsets":[84,148]},)"
      R"("b.weight_packed":{"dtype":"I32","shape":[8,2],"data_offsets":[148,212]},)"
      R"("b.weight_scale":{"dtype":"BF16","shape":[8,1],"data_offsets":[212,228]},)"
      R"("b.weight_shape":{"dtype":"I64","shape":[2],"data_offsets":[228,244]},)"
      R"("c.qweight":{"dtype":"I32","shape":[16,1],"data_offsets":[244,308]},)"
      R"("c.qzeros":{"dtype":"I32","shape":[1,1],"data_offsets":[308,312]},)"
      R"("c.scales":{"dtype":"F16","shape":[1,8],"data_offsets":[312,328]},)"
      R"("d.weight_packed":{"dtype":"I32","shape":[8,2],"data_offsets":[328,392]},)"
      R"("d.weight_scale":{"dtype":"BF16","shape":[8,1],"data_offsets":[392,408]},)"
      R"("d.weight_zero_point":{"dtype":"I32","shape":[1,1],"data_offsets":[408,412]}})";
  std::string data(412, '\0');
  data.replace(64, 4, "wwww");
  data[228] = 8;
  data[236] = 16;
  const IntegerWeights kinds[] = {
      {.layout = IntegerWeights::Layout::kGptq, .group = 128, .stored_zero = 7},
      {.layout = IntegerWeights::Layout::kGptq,
       .dtype = kernels::DType::kInt8,
       .group = 128,
       .zeros = true,
       .zeros_less_one = true},
      {.layout = IntegerWeights::Layout::kCompressedTensors,
       .dtype = kernels::DType::kInt8,
       .group = 128,
       .zeros = true},
      {.layout = IntegerWeights::Layout::kAwq,
       .dtype = kernels::DType::kInt8,
       .group = 128,
       .zeros = true}};
  Random random(5);
  int read = 0;
  for (int i = 0; i < 2000; ++i) {
    write("model.safetensors", random.chance(70) ? with_length(mutate(header, random), data)
                                                 : with_length(header, mutate(data, random)));
    const Result<Checkpoint> checkpoint = Checkpoint::open(dir_);
    if (!checkpoint) continue;
    for (const IntegerWeights& kind : kinds) {
      const char* name = kind.layout == IntegerWeights::Layout::kGptq  ? "a.weight"
                         : kind.layout == IntegerWeights::Layout::kAwq ? "c.weight"
                         : kind.zeros                                  ? "d.weight"
                                                                       : "b.weight";
      const auto weight = packed_weight(*checkpoint, kind, name, 8, 16);
      if (!weight || !check_values(*checkpoint, *weight)) continue;
      ++read;
      std::vector<std::byte> packed(kernels::packed_bytes(kernels::DType::kF32, 8, 16));
      (void)kernels::pack({&weight->piece, 1}, packed.data());
    }
  }
  EXPECT_GT(read, 50);
}

TEST(ModelConfigFuzz, ABrokenConfigIsRefusedOrHasValuesThatCanBeUsed) {
  for (const char* dir :
       {"models/deepseek-tiny/config.json", "tests/goldens/families/llama/config.json",
        "tests/goldens/families/qwen2/config.json", "tests/goldens/families/qwen3/config.json",
        "tests/goldens/families/deepseek_v2/config.json", "tests/fuzz/corpora/config/gptq.json",
        "tests/fuzz/corpora/config/awq.json", "tests/fuzz/corpora/config/pack-quantized.json"}) {
    std::ifstream in(dir);
    std::string good{std::istreambuf_iterator<char>(in), {}};
    ASSERT_TRUE(parse_model_config(good, "config.json").has_value()) << dir;
    Random random(3);
    int accepted = 0;
    for (int i = 0; i < 2500; ++i) {
      Result<ModelConfig> config = parse_model_config(mutate(good, random), "config.json");
      if (!config) {
        EXPECT_EQ(config.error().kind, ErrorKind::kInvalid);
        EXPECT_NE(config.error().message.find("config.json"), std::string::npos)
            << config.error().message;
        continue;
      }
      ++accepted;
      for (int extent : {config->vocab_size, config->hidden_size, config->num_layers,
                         config->num_heads, config->num_kv_heads, config->qk_rope_head_dim,
                         config->v_head_dim, config->max_positions}) {
        EXPECT_GT(extent, 0);
      }
      EXPECT_EQ(config->kv_lora_rank > 0, config->attention == AttentionKind::kLatent);
      EXPECT_EQ(config->num_heads % config->num_kv_heads, 0);
      EXPECT_LE(config->first_dense_layers, config->num_layers);
      EXPECT_GE(config->moe_layer_freq, 1);
      EXPECT_EQ(config->integers.value_or(IntegerWeights{}).group % 128, 0);
      for (int ranks : {2, 3, 8}) {
        const Status fits = check_tensor_parallel(*config, ranks);
        EXPECT_TRUE(fits || fits.error().kind == ErrorKind::kInvalid);
      }
    }
    EXPECT_GT(accepted, 20) << dir;
  }
}

TEST(ProbeFileFuzz, HasOnlyTokensOfTheVocabularyAndNotTooMany) {
  const std::string good = R"({"prompt": [0, 3, 294, 281], "answer": [403, 367, 308]})";
  Random random(4);
  int accepted = 0;
  for (int i = 0; i < 3000; ++i) {
    const Result<ProbeFile> probe = parse_probe_file(mutate(good, random), 500, 8);
    if (!probe) {
      EXPECT_EQ(probe.error().kind, ErrorKind::kInvalid);
      EXPECT_LT(probe.error().message.size(), 300U);
      continue;
    }
    ++accepted;
    EXPECT_LE(probe->prompt.size() + probe->answer.size(), 8U);
    for (const auto& tokens : {probe->prompt, probe->answer}) {
      EXPECT_FALSE(tokens.empty());
      for (const engine::TokenId token : tokens) EXPECT_TRUE(token >= 0 && token < 500) << token;
    }
  }
  EXPECT_GT(accepted, 20);
}

}  // namespace
}  // namespace dsm::model
