// A checkpoint in FP8 blocks (tests/goldens/make_fp8_goldens.py) gives the logits of the reference,
// and to the last bit those of the same checkpoint dequantised to FP32, on any number of ranks.
#include <gmock/gmock.h>

#include <cmath>
#include <thread>
#include <tuple>

#include "kernels/cpu/pack.h"
#include "tests/model/checkpoint_writer.h"
#include "tests/model/model_fixture.h"
#include "worker/comm/thread_comm.h"

namespace dsm::model {
namespace {

using testing::HasSubstr;

namespace fs = std::filesystem;

constexpr const char* kFp8Model = "tests/goldens/fp8-tiny";
constexpr std::int64_t kBlock = 128;

std::string read_text(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

TestTensors read_tensors() {
  auto tensors = read_safetensors(fs::path(kFp8Model) / "model-00001-of-00002.safetensors");
  tensors.merge(read_safetensors(fs::path(kFp8Model) / "model-00002-of-00002.safetensors"));
  return tensors;
}

std::vector<float> floats_of(const TestTensor& tensor) {
  std::vector<float> values(tensor.bytes.size() / sizeof(float));
  std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
  return values;
}

std::string bytes_of_floats(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

// The definition, element by element.
TestTensor dequantise(const TestTensor& weight, const TestTensor& scale) {
  const auto scales = floats_of(scale);
  const std::int64_t columns = weight.shape[1];
  const std::int64_t across = (columns + kBlock - 1) / kBlock;
  std::vector<float> values;
  for (std::size_t i = 0; i < weight.bytes.size(); ++i) {
    const auto bits = static_cast<std::uint8_t>(weight.bytes[i]);
    const std::int64_t row = static_cast<std::int64_t>(i) / columns;
    const std::int64_t column = static_cast<std::int64_t>(i) % columns;
    const auto block = static_cast<std::size_t>(row / kBlock * across + column / kBlock);
    values.push_back(kernels::from_e4m3(bits) * scales[block]);
  }
  return {"F32", weight.shape, bytes_of_floats(values)};
}

TestTensors dequantised(const TestTensors& tensors) {
  TestTensors plain;
  for (const auto& [name, tensor] : tensors) {
    if (name.ends_with("_scale_inv")) continue;
    plain[name] =
        tensor.dtype == "F8_E4M3" ? dequantise(tensor, tensors.at(name + "_scale_inv")) : tensor;
  }
  return plain;
}

nlohmann::json fp8_config() {
  return nlohmann::json::parse(read_text(fs::path(kFp8Model) / "config.json"));
}

std::string plain_config() {
  auto json = fp8_config();
  json.erase("quantization_config");
  return json.dump();
}

// The nearest FP8 values of a matrix in BF16, each block's largest the largest there is.
std::pair<TestTensor, TestTensor> quantise(const TestTensor& bf16) {
  const std::int64_t rows = bf16.shape[0];
  const std::int64_t columns = bf16.shape[1];
  const std::int64_t across = (columns + kBlock - 1) / kBlock;
  std::vector<float> values(static_cast<std::size_t>(rows * columns));
  kernels::to_float(reinterpret_cast<const std::byte*>(bf16.bytes.data()), kernels::DType::kBF16,
                    rows * columns, values.data());
  std::vector<float> scales(static_cast<std::size_t>((rows + kBlock - 1) / kBlock * across));
  const auto scale_of = [&](std::size_t i) -> float& {
    const auto row = static_cast<std::int64_t>(i) / columns;
    const auto column = static_cast<std::int64_t>(i) % columns;
    return scales[static_cast<std::size_t>(row / kBlock * across + column / kBlock)];
  };
  for (std::size_t i = 0; i < values.size(); ++i) {
    scale_of(i) = std::max(scale_of(i), std::abs(values[i]) / 448);
  }
  TestTensor fp8{"F8_E4M3", bf16.shape, ""};
  for (std::size_t i = 0; i < values.size(); ++i) {
    const float wanted = std::abs(values[i]) / scale_of(i);
    std::uint8_t best = 0;
    for (std::uint8_t bits = 0; bits < 0x7f; ++bits) {
      if (std::abs(kernels::from_e4m3(bits) - wanted) <
          std::abs(kernels::from_e4m3(best) - wanted)) {
        best = bits;
      }
    }
    fp8.bytes += static_cast<char>(best | (values[i] < 0 ? 0x80 : 0));
  }
  return {fp8, {"F32", {(rows + kBlock - 1) / kBlock, across}, bytes_of_floats(scales)}};
}

Result<std::unique_ptr<RankModel>> try_load(const fs::path& dir, RankSpec spec = {}) {
  const auto config = load_model_config(dir);
  if (!config) return std::unexpected(config.error());
  return RankModel::load(dir, *config, spec, {.num_blocks = 8}, 256, {});
}

std::unique_ptr<RankModel> load(const fs::path& dir, RankSpec spec = {}) {
  auto model = try_load(dir, spec);
  if (!model) throw std::runtime_error(model.error().message);
  return std::move(*model);
}

nlohmann::json golden() {
  return nlohmann::json::parse(read_text("tests/goldens/fp8-tiny.json"));
}

std::vector<float> logits_of(RankModel& model, comm::Communicator& comm) {
  const auto tokens = golden()["tokens"].get<std::vector<engine::TokenId>>();
  const auto span =
      model.forward_all({1, {make_row(tokens, 0, tokens.size(), blocks_for(tokens.size()))}}, comm);
  return {span.begin(), span.end()};
}
std::vector<float> logits_of(const fs::path& dir, RankSpec spec = {}) {
  NoComm comm;
  return logits_of(*load(dir, spec), comm);
}

TEST(Fp8, LogitsAreThoseOfTheReference) {
  const auto reference = golden();
  const auto logits = logits_of(kFp8Model);
  const auto positions = reference["positions"].get<std::vector<std::size_t>>();
  double worst = 0;
  for (std::size_t i = 0; i < positions.size(); ++i) {
    const auto wanted = reference["logits"][i].get<std::vector<double>>();
    for (std::size_t v = 0; v < wanted.size(); ++v) {
      worst = std::max(worst, std::abs(logits[positions[i] * wanted.size() + v] - wanted[v]));
    }
  }
  EXPECT_LT(worst, 1e-3);
  std::printf("largest difference to the reference: %.2e\n", worst);
}

TEST(Fp8, BitsAreThoseOfTheDequantisedCheckpoint) {
  const TestDir dir;
  dir.write("config.json", plain_config());
  dir.write("model.safetensors", safetensors_bytes(dequantised(read_tensors())));
  const auto wanted = logits_of(dir.path());
  for (const kernels::Ops* ops : kernels::available_ops()) {
    expect_same_bits(logits_of(kFp8Model, {.ops = ops}), wanted);
  }
  expect_same_bits(logits_of(kFp8Model, {.threads = 3}), wanted);
}

TEST(Fp8, TheNumberOfRanksDoesNotMatterThoughCutsFallInsideOfBlocks) {
  const auto wanted = logits_of(kFp8Model);
  for (const int size : {2, 4, 8}) {
    auto comms = comm::make_thread_communicators(size);
    std::vector<float> got;
    std::vector<std::thread> ranks;
    for (int rank = 0; rank < size; ++rank) {
      ranks.emplace_back([&, rank] {
        const auto model = load(kFp8Model, {.rank = rank, .size = size});
        auto logits = logits_of(*model, *comms[static_cast<std::size_t>(rank)]);
        if (rank == 0) got = std::move(logits);
      });
    }
    for (auto& rank : ranks) rank.join();
    expect_same_bits(got, wanted);
  }
}

// Scales that are powers of two, stored as F32 or in the type of one byte that is made for them.
TEST(Fp8, ScalesMayBePowersOfTwoInOneByte) {
  auto tensors = read_tensors();
  auto bytes = tensors;
  for (auto& [name, tensor] : tensors) {
    if (!name.ends_with("_scale_inv")) continue;
    auto scales = floats_of(tensor);
    TestTensor one_byte{"F8_E8M0", tensor.shape, ""};
    for (float& scale : scales) {
      const int exponent = static_cast<int>(std::ceil(std::log2(scale)));
      scale = std::ldexp(1.0F, exponent);
      one_byte.bytes += static_cast<char>(exponent + 127);
    }
    tensor.bytes = bytes_of_floats(scales);
    bytes[name] = one_byte;
  }
  auto config = fp8_config();
  config["quantization_config"]["scale_fmt"] = "ue8m0";
  const TestDir as_floats;
  as_floats.write("config.json", config.dump());
  as_floats.write("model.safetensors", safetensors_bytes(tensors));
  const TestDir as_bytes;
  as_bytes.write("config.json", config.dump());
  as_bytes.write("model.safetensors", safetensors_bytes(bytes));
  const TestDir plain;
  plain.write("config.json", plain_config());
  plain.write("model.safetensors", safetensors_bytes(dequantised(tensors)));
  const auto wanted = logits_of(plain.path());
  expect_same_bits(logits_of(as_floats.path()), wanted);
  expect_same_bits(logits_of(as_bytes.path()), wanted);
}

// The matrices of layers, but neither the router nor the weights of the indexer's heads.
TEST(Fp8, AModelWithAnIndexerLoadsAsDeepSeekPublishesIt) {
  const fs::path source = "tests/goldens/families/deepseek_v32";
  TestTensors tensors;
  for (const auto& [name, tensor] : read_safetensors(source / "model.safetensors")) {
    if (tensor.shape.size() < 2 || !name.starts_with("model.layers.") ||
        name.ends_with("gate.weight") || name.ends_with("indexer.weights_proj.weight")) {
      tensors[name] = tensor;
      continue;
    }
    std::tie(tensors[name], tensors[name + "_scale_inv"]) = quantise(tensor);
  }
  EXPECT_EQ(tensors.at("model.layers.2.self_attn.indexer.wk.weight").dtype, "F8_E4M3");
  auto config = nlohmann::json::parse(read_text(source / "config.json"));
  const TestDir plain;
  plain.write("config.json", config.dump());
  plain.write("model.safetensors", safetensors_bytes(dequantised(tensors)));
  config["quantization_config"] = fp8_config()["quantization_config"];
  const TestDir quantised;
  quantised.write("config.json", config.dump());
  quantised.write("model.safetensors", safetensors_bytes(tensors));
  expect_same_bits(logits_of(quantised.path()), logits_of(plain.path()));
}

TEST(Fp8, WhatDoesNotFitIsNamed) {
  const auto error = [](const TestTensors& tensors, const std::string& config) -> std::string {
    const TestDir dir;
    dir.write("config.json", config);
    dir.write("model.safetensors", safetensors_bytes(tensors));
    const auto model = try_load(dir.path());
    return model ? "loaded" : model.error().message;
  };
  const std::string config = read_text(fs::path(kFp8Model) / "config.json");
  const auto good = read_tensors();
  const std::string weight = "model.layers.1.mlp.experts.2.down_proj.weight";
  EXPECT_EQ(error(good, config), "loaded");
  EXPECT_THAT(error(good, plain_config()),
              HasSubstr("is in FP8, but config.json has no quantization_config"));
  auto bad = good;
  bad.erase(weight + "_scale_inv");
  EXPECT_THAT(error(bad, config), HasSubstr("has no tensor " + weight + "_scale_inv"));
  bad = good;
  bad[weight + "_scale_inv"].shape = {1, 4};
  EXPECT_THAT(error(bad, config), HasSubstr(weight + "_scale_inv has shape [1, 4]"));
  bad = good;
  auto& scale = bad[weight + "_scale_inv"];
  scale = {"BF16", scale.shape, scale.bytes.substr(0, scale.bytes.size() / 2)};
  EXPECT_THAT(error(bad, config), HasSubstr("_scale_inv is neither F32 nor F8_E8M0"));
  bad = good;
  bad[weight].bytes[777] = '\x7f';
  EXPECT_THAT(error(bad, config),
              HasSubstr("tensor " + weight + ": a weight, or its scale, is not a number"));
  bad = good;
  auto& norm = bad["model.norm.weight"];
  norm = {"F8_E4M3", norm.shape, norm.bytes.substr(0, norm.bytes.size() / 2)};
  EXPECT_THAT(error(bad, config), HasSubstr("tensor model.norm.weight is in FP8"));
}

}  // namespace
}  // namespace dsm::model
