// Weights rounded to integers when they are loaded, embedding and head to INT8: near the model
// whose checkpoint holds the rounded weights in FP32, the same bits in every table and on any
// number of ranks; and how far its logits are from those of the weights as they are stored.
#include <gmock/gmock.h>

#include <cmath>

#include "tests/model/whole_checkpoint.h"

namespace dsm::model {
namespace {

using kernels::DType;
using testing::HasSubstr;

namespace fs = std::filesystem;

constexpr DType kIntegers[] = {DType::kInt8, DType::kInt4};

// Projections of attention and matrices of MLPs and experts.
bool is_rounded(const std::string& name) {
  if (name.ends_with("kv_a_proj_with_mqa.weight")) return true;
  return name.ends_with("_proj.weight") && name.find("kv_b_proj") == std::string::npos &&
         name.find("indexer") == std::string::npos && name.find("eh_proj") == std::string::npos;
}
bool is_of_tokens(const std::string& name) {
  return name == "model.embed_tokens.weight" || name == "lm_head.weight";
}

// The checkpoint with its rounded weights, and all that was in FP8, in FP32.
void write_rounded(const fs::path& from, DType dtype, const TestDir& to) {
  const auto tensors = read_tensors(from);
  TestTensors written;
  for (const auto& [name, tensor] : tensors) {
    if (name.ends_with("_scale_inv")) continue;
    if (is_rounded(name) || is_of_tokens(name)) {
      const DType type = is_of_tokens(name) ? DType::kInt8 : dtype;
      written[name] =
          in_fp32(tensor.shape, rounded(values_of(tensors, name), tensor.shape[1], type));
    } else if (tensor.dtype == "F8_E4M3") {
      written[name] = in_fp32(tensor.shape, values_of(tensors, name));
    } else {
      written[name] = tensor;
    }
  }
  auto config = read_config(from);
  config.erase("quantization_config");
  to.write("config.json", config.dump());
  to.write("model.safetensors", safetensors_bytes(written));
}

class RoundedWeights : public testing::TestWithParam<const char*> {};

TEST_P(RoundedWeights, AreNearACheckpointThatHoldsThemAndTheSameInEveryTable) {
  for (const DType dtype : kIntegers) {
    const TestDir dir;
    write_rounded(GetParam(), dtype, dir);
    const auto wanted = logits_of(GetParam(), {.round_weights = dtype});
    expect_near_fp32(wanted, logits_of(dir.path(), {}));
    for (const kernels::Ops* ops : kernels::available_ops()) {
      expect_same_bits(logits_of(GetParam(), {.ops = ops, .round_weights = dtype}), wanted);
    }
    expect_same_bits(logits_of(GetParam(), {.threads = 3, .round_weights = dtype}), wanted);
  }
}

TEST_P(RoundedWeights, AreTheSameForEveryNumberOfRanks) {
  const auto config = load_model_config(GetParam());
  ASSERT_TRUE(config);
  for (const DType dtype : kIntegers) {
    const auto wanted = logits_of(GetParam(), {.round_weights = dtype});
    for (const int size : {2, 4, 8}) {
      if (!check_tensor_parallel(*config, size)) continue;
      const auto got = logits_of_ranks(GetParam(), {.size = size, .round_weights = dtype});
      expect_same_bits(got, wanted);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, RoundedWeights,
                         testing::Values("models/deepseek-tiny", "tests/goldens/fp8-tiny",
                                         "tests/goldens/families/qwen2",
                                         "tests/goldens/families/llama",  // its head is tied
                                         "tests/goldens/families/deepseek_v2_lite",
                                         "tests/goldens/families/deepseek_v32"),
                         [](const auto& checkpoint) { return checkpoint_name(checkpoint); });

// Of the default model's logits, against transformers in FP32.
TEST(RoundedWeightsError, IsBounded) {
  const struct {
    DType dtype;
    double mean;  // of the root mean square of a position's differences
    double worst;
  } bounds[] = {{DType::kInt8, 0.1, 1.5}, {DType::kInt4, 1.0, 12.0}};
  for (const auto& [dtype, mean_bound, worst_bound] : bounds) {
    const auto model = load_tiny({.round_weights = dtype});
    const auto vocab = static_cast<std::size_t>(model->config().vocab_size);
    NoComm comm;
    double worst = 0;
    double sum = 0;
    int positions = 0;
    for (const auto& golden : load_goldens()) {
      const auto logits = model->forward_all(
          {1, {make_row(golden.tokens, 0, golden.tokens.size(), blocks_for(golden.tokens.size()))}},
          comm);
      for (std::size_t i = 0; i < golden.positions.size(); ++i) {
        double squares = 0;
        for (std::size_t v = 0; v < vocab; ++v) {
          const double difference = std::abs(
              static_cast<double>(logits[golden.positions[i] * vocab + v]) - golden.logits[i][v]);
          worst = std::max(worst, difference);
          squares += difference * difference;
        }
        sum += std::sqrt(squares / static_cast<double>(vocab));
        ++positions;
      }
    }
    std::printf("INT%d: differences of logits %.3f on average, at most %.3f\n",
                dtype == DType::kInt8 ? 8 : 4, sum / positions, worst);
    EXPECT_LT(sum / positions, mean_bound);
    EXPECT_LT(worst, worst_bound);
  }
}

TEST(RoundedWeightsError, AWeightThatIsNotFiniteIsNamed) {
  const fs::path from = "tests/goldens/families/llama";
  for (const std::string name :
       {"model.layers.1.mlp.down_proj.weight", "model.embed_tokens.weight"}) {
    auto tensors = read_tensors(from);
    auto values = values_of(tensors, name);
    values[7] = INFINITY;
    tensors[name] = in_fp32(tensors.at(name).shape, values);
    const TestDir dir;
    dir.write("model.safetensors", safetensors_bytes(tensors));
    fs::copy_file(from / "config.json", dir.path() / "config.json");
    const auto config = load_model_config(dir.path());
    ASSERT_TRUE(config);
    const auto model = RankModel::load(dir.path(), *config, {.round_weights = DType::kInt8},
                                       {.num_blocks = 8}, 256, {});
    ASSERT_FALSE(model);
    EXPECT_THAT(model.error().message,
                HasSubstr("tensor " + name +
                          ": a weight, or its scale, is not a number (NaN) or infinite and cannot "
                          "be rounded"));
  }
}

}  // namespace
}  // namespace dsm::model
