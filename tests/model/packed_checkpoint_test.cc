// Checkpoints whose weights somebody else has rounded to integers: near the model whose checkpoint
// holds these weights in FP32, whichever matrices are integers, and the same bits in every table
// and on any number of ranks.
#include <gmock/gmock.h>

#include <functional>

#include "tests/model/packed_writer.h"
#include "tests/model/whole_checkpoint.h"

namespace dsm::model {
namespace {

using kernels::DType;
using testing::HasSubstr;

namespace fs = std::filesystem;

using Chosen = std::function<bool(const std::string& name)>;

bool is_matrix(const std::string& name) {
  return name.ends_with("_proj.weight") || name.ends_with("_with_mqa.weight");
}
// Attention stays as it is, as where experts alone are integers.
bool is_of_mlp(const std::string& name) {
  return is_matrix(name) && name.find(".mlp.") != std::string::npos;
}
// Also what products take in FP32 alone, and what others rather leave out.
bool is_linear(const std::string& name) {
  return is_matrix(name) || name.ends_with("gate.weight") || name == "lm_head.weight" ||
         name.find("indexer.w") != std::string::npos;
}

// The same weights twice: in integers, and what these are in FP32.
struct Pair {
  Pair(const fs::path& from, const PackedForm& form, const Chosen& chosen) {
    TestTensors tensors = read_tensors(from);
    TestTensors plain = tensors;
    for (const auto& [name, tensor] : plain) {
      if (!chosen(name) || !can_be_packed(tensor, form)) continue;
      const auto shape = tensor.shape;
      plain[name] = in_fp32(shape, pack_weight(tensors, name, values_of(tensors, name), form));
      ++count;
    }
    auto config = read_config(from);
    config.erase("quantization_config");
    dequantised.write("config.json", config.dump());
    dequantised.write("model.safetensors", safetensors_bytes(plain));
    config["quantization_config"] = quantization_config(form);
    packed.write("config.json", config.dump());
    packed.write("model.safetensors", safetensors_bytes(tensors));
  }

  TestDir packed;
  TestDir dequantised;
  int count = 0;  // matrices in integers
};

class PackedCheckpoint : public testing::TestWithParam<const char*> {};

// The default model is forty times as large as the others. Of what they prove in every combination,
// it takes each form and each table once: its inputs alone are of many groups.
bool is_large(const std::string& checkpoint) {
  return checkpoint == kTinyModel;
}

TEST_P(PackedCheckpoint, IsNearItsWeightsInFp32AndTheSameInEveryTable) {
  const auto tables = kernels::available_ops();
  for (std::size_t at = 0; at < std::size(kPackedForms); ++at) {
    const PackedForm& form = kPackedForms[at];
    SCOPED_TRACE(form.name);
    const Pair pair(GetParam(), form, is_matrix);
    ASSERT_GT(pair.count, 5);
    const auto wanted = logits_of(pair.packed.path(), {});
    expect_near_fp32(wanted, logits_of(pair.dequantised.path(), {}));
    // By twos each of three tables has INT4 and INT8.
    const auto some = is_large(GetParam()) ? tables.subspan(at / 2 % tables.size(), 1) : tables;
    for (const kernels::Ops* ops : some) {
      expect_same_bits(logits_of(pair.packed.path(), {.ops = ops}), wanted);
    }
    expect_same_bits(logits_of(pair.packed.path(), {.threads = 3}), wanted);
  }
}

TEST_P(PackedCheckpoint, IsTheSameForEveryNumberOfRanks) {
  const auto config = load_model_config(GetParam());
  ASSERT_TRUE(config);
  // Each way to lay words out, both types and both kinds of groups.
  for (const int at : {1, 2, 3, 5, 6, 8}) {
    const PackedForm& form = kPackedForms[at];
    SCOPED_TRACE(form.name);
    const Pair pair(GetParam(), form, is_matrix);
    const auto wanted = logits_of(pair.packed.path(), {});
    for (const int size : {2, 4, 8}) {
      // Whoever cuts into eight cuts where two and four are cut.
      if (is_large(GetParam()) && size < 8) continue;
      if (!check_tensor_parallel(*config, size)) continue;
      expect_same_bits(logits_of_ranks(pair.packed.path(), {.size = size}), wanted);
    }
  }
}

// What is left out stays as it is stored, and what is packed where products take no integers
// becomes FP32.
TEST_P(PackedCheckpoint, MayHaveAnyOfItsMatricesInIntegers) {
  const Chosen one_of_two = [](const std::string& name) {
    return is_matrix(name) && name.find("up_proj") == std::string::npos &&
           name.find("v_proj") == std::string::npos;
  };
  const Chosen choices[] = {is_of_mlp, is_linear, one_of_two};
  const int forms[] = {0, 3, 8};
  for (std::size_t at = 0; at < std::size(choices); ++at) {
    for (std::size_t other = 0; other < std::size(forms); ++other) {
      if (is_large(GetParam()) && other != at) continue;
      const Chosen& chosen = choices[at];
      const int form = forms[other];
      const Pair pair(GetParam(), kPackedForms[form], chosen);
      expect_near_fp32(logits_of(pair.packed.path(), {}), logits_of(pair.dequantised.path(), {}));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, PackedCheckpoint,
                         testing::Values("models/deepseek-tiny", "tests/goldens/families/qwen2",
                                         "tests/goldens/families/llama",
                                         "tests/goldens/families/deepseek_v2_lite",
                                         "tests/goldens/families/deepseek_v32"),
                         [](const auto& checkpoint) { return checkpoint_name(checkpoint); });

TEST(PackedCheckpointModes, TheLooseModeAndWholeExpertsTakeItAsWell) {
  for (const int form : {0, 4, 8}) {
    const Pair pair(kTinyModel, kPackedForms[form], is_matrix);
    for (const bool whole : {false, true}) {
      const RankSpec spec{.size = 2, .deterministic = false, .expert_parallel = whole};
      expect_near_fp32(logits_of_ranks(pair.packed.path(), spec),
                       logits_of_ranks(pair.dequantised.path(), spec));
    }
    const RankSpec own{.size = 2, .data_parallel_attention = true};
    expect_same_bits(logits_of_ranks(pair.packed.path(), own), logits_of(pair.packed.path(), {}));
  }
}

TEST(PackedCheckpointModes, ItsDraftLayerIsLoadedAsWell) {
  const Pair pair(kTinyModel, kPackedForms[3], is_matrix);
  expect_same_bits(logits_of(pair.packed.path(), {.drafts = true}),
                   logits_of(pair.packed.path(), {}));
}

// Embedding and head as the loader rounds them.
void round_tokens(TestTensors& tensors) {
  for (const char* name : {"model.embed_tokens.weight", "lm_head.weight"}) {
    const auto shape = tensors.at(name).shape;
    tensors[name] = in_fp32(shape, rounded(values_of(tensors, name), shape[1], DType::kInt8));
  }
}

// INT4 asked for: the matrices that are integers stay, the others are rounded, embedding and head
// among them.
TEST(PackedCheckpointRounding, IsOfTheMatricesThatAreNotIntegersYet) {
  const PackedForm& form = kPackedForms[0];
  const Pair pair(kTinyModel, form, is_of_mlp);
  // Attention rounded by the loader beside MLPs that are FP32 cannot be asked for, so its weights
  // are those of a checkpoint that holds them rounded.
  TestTensors tensors = read_safetensors(pair.dequantised.path() / "model.safetensors");
  for (const auto& [name, tensor] : TestTensors(tensors)) {
    if (is_matrix(name) && !is_of_mlp(name) && name.find("kv_b_proj") == std::string::npos &&
        name.find("eh_proj") == std::string::npos) {
      tensors[name] =
          in_fp32(tensor.shape, rounded(values_of(tensors, name), tensor.shape[1], DType::kInt4));
    }
  }
  round_tokens(tensors);
  pair.dequantised.write("model.safetensors", safetensors_bytes(tensors));
  expect_near_fp32(logits_of(pair.packed.path(), {.round_weights = DType::kInt4}),
                   logits_of(pair.dequantised.path(), {}));
  const Pair all(kTinyModel, form, is_matrix);
  tensors = read_safetensors(all.dequantised.path() / "model.safetensors");
  round_tokens(tensors);
  all.dequantised.write("model.safetensors", safetensors_bytes(tensors));
  expect_near_fp32(logits_of(all.packed.path(), {.round_weights = DType::kInt4}),
                   logits_of(all.dequantised.path(), {}));
  const auto config = load_model_config(pair.packed.path());
  ASSERT_TRUE(config);
  const auto twice = RankModel::load(pair.packed.path(), *config, {.round_weights = DType::kInt8},
                                     {.num_blocks = 8}, 256, {});
  ASSERT_FALSE(twice);
  EXPECT_EQ(twice.error().message,
            "weights are to be rounded to INT8, but the checkpoint has them in INT4 already "
            "(quantization_config in config.json), and rounding twice is worse than once: take "
            "auto, or a checkpoint in BF16");
}

// With zero points they are INT8 here: so is what else is rounded.
TEST(PackedCheckpointRounding, BesideZeroPointsIsToInt8) {
  const Pair pair(kTinyModel, kPackedForms[8], is_matrix);
  TestTensors tensors = read_safetensors(pair.dequantised.path() / "model.safetensors");
  round_tokens(tensors);
  pair.dequantised.write("model.safetensors", safetensors_bytes(tensors));
  expect_near_fp32(logits_of(pair.packed.path(), {.round_weights = DType::kInt8}),
                   logits_of(pair.dequantised.path(), {}));
  const auto config = load_model_config(pair.packed.path());
  ASSERT_TRUE(config);
  const auto twice = RankModel::load(pair.packed.path(), *config, {.round_weights = DType::kInt4},
                                     {.num_blocks = 8}, 256, {});
  ASSERT_FALSE(twice);
  EXPECT_THAT(twice.error().message,
              HasSubstr("to INT4, but the checkpoint has them in INT4 with zero points, which are "
                        "INT8 here, already"));
}

// What loading says of a checkpoint of which something was changed.
std::string error_of(const PackedForm& form, const std::function<void(TestTensors&)>& change) {
  const Pair pair("tests/goldens/families/llama", form, is_matrix);
  TestTensors tensors = read_safetensors(pair.packed.path() / "model.safetensors");
  change(tensors);
  pair.packed.write("model.safetensors", safetensors_bytes(tensors));
  const auto config = load_model_config(pair.packed.path());
  if (!config) return config.error().message;
  const auto model = RankModel::load(pair.packed.path(), *config, {}, {.num_blocks = 8}, 256, {});
  return model ? "loaded" : model.error().message;
}

constexpr const char* kModule = "model.layers.1.self_attn.o_proj.";

TEST(PackedCheckpointError, OfWhatStandsInItsTensorsNamesTheTensor) {
  const PackedForm& gptq = kPackedForms[3];
  const PackedForm& compressed = kPackedForms[0];
  const std::string module = kModule;
  const auto set = [&](const char* tensor, std::size_t at, char byte) {
    return [=](TestTensors& tensors) { tensors.at(module + tensor).bytes.at(at) = byte; };
  };
  EXPECT_EQ(error_of(gptq, [](TestTensors&) {}), "loaded");
  EXPECT_THAT(error_of(gptq, set("qzeros", 1, 0x57)),
              HasSubstr("tensor " + module +
                        "qzeros has 5 for output 3 of group 0, symmetric integers have 7, and "
                        "config.json says that these are"));
  EXPECT_THAT(error_of(gptq, set("g_idx", 4 * 5, 3)),
              HasSubstr("tensor " + module +
                        "g_idx puts input 5 into group 3, not 0: inputs that share a scale must "
                        "stand together"));
  EXPECT_THAT(
      error_of(gptq, set("scales", 1, 0x7c)),
      HasSubstr("tensor " + module + "qweight: a weight, or its scale, is not a finite number"));
  EXPECT_THAT(error_of(kPackedForms[7], set("qzeros", 1, 0x5f)),
              HasSubstr("tensor " + module + "qzeros has 15 for output 2 of group 0"));
  EXPECT_THAT(
      error_of(kPackedForms[8], set("scales", 1, 0x7c)),
      HasSubstr("tensor " + module + "qweight: a weight, or its scale, is not a finite number"));
  EXPECT_THAT(error_of(compressed, set("weight_shape", 0, 7)),
              HasSubstr("tensor " + module + "weight_shape says [7, "));
  EXPECT_THAT(error_of(compressed,
                       [&](TestTensors& tensors) {
                         TestTensor order = tensors.at(module + "weight_shape");
                         const auto inputs = read_config("tests/goldens/families/llama");
                         const auto width = inputs["num_attention_heads"].get<std::int64_t>() *
                                            inputs["head_dim"].get<std::int64_t>();
                         order.dtype = "I32";
                         order.shape = {width};
                         order.bytes = std::string(static_cast<std::size_t>(width) * 4, '\1');
                         tensors[module + "weight_g_idx"] = order;
                       }),
              HasSubstr("tensor " + module + "weight_g_idx puts input 0 into group 16843009"));
}

TEST(PackedCheckpointError, OfAMissingOrForeignTensorNamesIt) {
  const PackedForm& gptq = kPackedForms[3];
  const PackedForm& compressed = kPackedForms[0];
  const std::string module = kModule;
  const auto without = [&](const char* tensor) {
    return [=](TestTensors& tensors) { tensors.erase(module + tensor); };
  };
  const auto as = [&](const char* tensor, const char* dtype) {
    return [=](TestTensors& tensors) { tensors.at(module + tensor).dtype = dtype; };
  };
  EXPECT_THAT(error_of(gptq, without("scales")), HasSubstr("has no tensor " + module + "scales"));
  EXPECT_THAT(error_of(gptq, without("qzeros")), HasSubstr("has no tensor " + module + "qzeros"));
  EXPECT_THAT(error_of(gptq, without("qweight")), HasSubstr("has no tensor " + module + "weight"));
  EXPECT_EQ(error_of(gptq, without("g_idx")), "loaded") << "in order, as the options say";
  EXPECT_THAT(error_of(compressed, without("weight_scale")),
              HasSubstr("has no tensor " + module + "weight_scale"));
  EXPECT_EQ(error_of(compressed, without("weight_shape")), "loaded") << "known from config.json";
  EXPECT_THAT(error_of(gptq, as("qweight", "F32")),
              HasSubstr("tensor " + module + "qweight has dtype F32, not I32"));
  EXPECT_THAT(error_of(compressed, as("weight_scale", "I16")),
              HasSubstr("weight_scale has dtype I16, not F16 or BF16 or F32"));
  EXPECT_THAT(error_of(compressed,
                       [&](TestTensors& tensors) {
                         tensors[module + "weight_zero_point"] = {"I8", {1}, "0"};
                       }),
              HasSubstr("tensor " + module +
                        "weight_zero_point: symmetric integers, as config.json says these are, "
                        "have no zero points"));
  EXPECT_THAT(
      error_of(gptq,
               [&](TestTensors& tensors) { tensors[module + "weight"] = {"F32", {1}, "0000"}; }),
      HasSubstr("tensor " + module + "weight stands beside " + module + "qweight"));
  EXPECT_THAT(error_of(gptq,
                       [&](TestTensors& tensors) {
                         tensors.at(module + "scales").shape = {1, 1};
                         tensors.at(module + "scales").bytes = "00";
                       }),
              HasSubstr("tensor " + module + "scales has shape [1, 1], config.json needs [1, "));
}

}  // namespace
}  // namespace dsm::model
