// Activations in FP8 against the NumPy reference (tests/goldens/make_fp8_activation_goldens.py),
// and the same bits on any number of ranks.
#include <gmock/gmock.h>

#include <cmath>
#include <cstring>
#include <random>
#include <thread>

#include "tests/model/checkpoint_writer.h"
#include "tests/model/model_fixture.h"
#include "worker/comm/thread_comm.h"

namespace dsm::model {
namespace {

using testing::HasSubstr;

namespace fs = std::filesystem;

const fs::path kFp8Model = "tests/goldens/fp8-tiny";

nlohmann::json read_json(const fs::path& path) {
  std::ifstream file(path);
  return nlohmann::json::parse(file);
}

using Tokens = std::vector<engine::TokenId>;

std::vector<float> logits_of(const fs::path& dir, const RankSpec& spec, comm::Communicator& comm,
                             const Tokens& tokens) {
  const auto model = load_checkpoint(dir.string(), spec);
  const auto span = model->forward_all(
      {1, {make_row(tokens, 0, tokens.size(), blocks_for(tokens.size()))}}, comm);
  return {span.begin(), span.end()};
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    largest = std::max(largest, std::abs(static_cast<double>(a[i]) - b[i]));
  }
  return largest;
}

// fp8-tiny whose scales of activations are powers of two; the weights' stay what they are.
void write_power_of_two_model(const TestDir& dir) {
  auto config = read_json(kFp8Model / "config.json");
  config["quantization_config"]["scale_fmt"] = "ue8m0";
  dir.write("config.json", config.dump());
  auto tensors = read_safetensors(kFp8Model / "model-00001-of-00002.safetensors");
  tensors.merge(read_safetensors(kFp8Model / "model-00002-of-00002.safetensors"));
  dir.write("model.safetensors", safetensors_bytes(tensors));
}

TEST(Fp8Activations, LogitsAreThoseOfTheReference) {
  const auto golden = read_json("tests/goldens/fp8-activations.json");
  const auto tokens = golden["tokens"].get<Tokens>();
  NoComm comm;
  const auto exact = logits_of(kFp8Model, {}, comm, tokens);
  const TestDir power_of_two;
  write_power_of_two_model(power_of_two);
  for (const auto& entry : golden["cases"]) {
    std::vector<float> wanted;
    for (const auto& row : entry["logits"]) {
      for (const auto& value : row) wanted.push_back(value.get<float>());
    }
    const bool ue8m0 = entry["power_of_two"].get<bool>();
    const fs::path dir = ue8m0 ? power_of_two.path() : kFp8Model;
    const auto got = logits_of(dir, {.fp8_activations = true}, comm, tokens);
    const double difference = largest_difference(got, wanted);
    EXPECT_LT(difference, 1e-4) << "power of two: " << ue8m0;
    EXPECT_GT(largest_difference(wanted, exact), 0.1) << "the rounding changes nothing";
    std::printf("power of two: %d, largest difference to the reference: %.2e\n", ue8m0, difference);
  }
}

TEST(Fp8Activations, ChunksAndInstructionSetsDoNotMatter) {
  const auto tokens = read_json("tests/goldens/fp8-tiny.json")["tokens"].get<Tokens>();
  NoComm comm;
  const RankSpec spec{.fp8_activations = true};
  const auto whole = logits_of(kFp8Model, spec, comm, tokens);
  const auto model = load_checkpoint(kFp8Model.string(), spec);
  std::vector<float> chunked;
  for (const auto& [begin, end] : {std::pair{0, 1}, {1, 70}, {70, 150}}) {
    const auto span =
        model->forward_all({1,
                            {make_row(tokens, static_cast<std::size_t>(begin),
                                      static_cast<std::size_t>(end), blocks_for(150))}},
                           comm);
    chunked.insert(chunked.end(), span.begin(), span.end());
  }
  EXPECT_EQ(largest_difference(chunked, whole), 0);
  for (const kernels::Ops* ops : kernels::available_ops()) {
    const auto got =
        logits_of(kFp8Model, {.threads = 2, .ops = ops, .fp8_activations = true}, comm, tokens);
    EXPECT_EQ(largest_difference(got, whole), 0) << ops->name;
  }
}

// A model of family llama whose inputs divide into blocks over two ranks; random FP8 weights.
struct Cut {
  Cut() {
    const int hidden = 128;
    const int width = 512;
    nlohmann::json config = {{"model_type", "llama"},
                             {"architectures", {"LlamaForCausalLM"}},
                             {"hidden_act", "silu"},
                             {"hidden_size", hidden},
                             {"intermediate_size", width},
                             {"num_hidden_layers", 2},
                             {"num_attention_heads", 4},
                             {"num_key_value_heads", 2},
                             {"head_dim", 64},
                             {"vocab_size", 64},
                             {"rms_norm_eps", 1e-6},
                             {"rope_theta", 10000.0},
                             {"max_position_embeddings", 256}};
    config["quantization_config"] = read_json(kFp8Model / "config.json")["quantization_config"];
    dir.write("config.json", config.dump());
    add_floats("model.embed_tokens.weight", {64, hidden});
    add_floats("lm_head.weight", {64, hidden});
    add_floats("model.norm.weight", {hidden});
    for (const char* layer : {"model.layers.0.", "model.layers.1."}) {
      const std::string at = layer;
      add_floats(at + "input_layernorm.weight", {hidden});
      add_floats(at + "post_attention_layernorm.weight", {hidden});
      add_fp8(at + "self_attn.q_proj.weight", 256, hidden);
      add_fp8(at + "self_attn.k_proj.weight", 128, hidden);
      add_fp8(at + "self_attn.v_proj.weight", 128, hidden);
      add_fp8(at + "self_attn.o_proj.weight", hidden, 256);
      add_fp8(at + "mlp.gate_proj.weight", width, hidden);
      add_fp8(at + "mlp.up_proj.weight", width, hidden);
      add_fp8(at + "mlp.down_proj.weight", hidden, width);
    }
    dir.write("model.safetensors", safetensors_bytes(tensors));
  }

  void add_floats(const std::string& name, const std::vector<std::int64_t>& shape) {
    std::int64_t count = 1;
    for (const auto extent : shape) count *= extent;
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& value : values) value = normal(random);
    tensors[name] = {"F32", shape, bytes_of(values)};
  }
  void add_fp8(const std::string& name, std::int64_t rows, std::int64_t columns) {
    TestTensor weight{"F8_E4M3", {rows, columns}, ""};
    for (std::int64_t i = 0; i < rows * columns; ++i) {
      const auto bits = static_cast<std::uint8_t>(random());
      weight.bytes += static_cast<char>((bits & 0x7fU) == 0x7f ? 0 : bits);
    }
    tensors[name] = weight;
    const std::vector<float> scales(static_cast<std::size_t>(rows / 128 * (columns / 128)), 1e-3F);
    tensors[name + "_scale_inv"] = {"F32", {rows / 128, columns / 128}, bytes_of(scales)};
  }
  static std::string bytes_of(const std::vector<float>& values) {
    return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
  }

  std::mt19937 random{5};
  std::normal_distribution<float> normal;
  TestTensors tensors;
  TestDir dir;
};

TEST(Fp8Activations, TheNumberOfRanksDoesNotMatter) {
  const Cut cut;
  Tokens tokens(80);
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int>(i * 37 % 64);
  NoComm alone;
  const auto whole = logits_of(cut.dir.path(), {.fp8_activations = true}, alone, tokens);
  EXPECT_GT(largest_difference(logits_of(cut.dir.path(), {}, alone, tokens), whole), 0);
  auto comms = comm::make_thread_communicators(2);
  std::vector<float> got;
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < 2; ++rank) {
    ranks.emplace_back([&, rank] {
      auto logits = logits_of(cut.dir.path(), {.rank = rank, .size = 2, .fp8_activations = true},
                              *comms[static_cast<std::size_t>(rank)], tokens);
      if (rank == 0) got = std::move(logits);
    });
  }
  for (auto& rank : ranks) rank.join();
  EXPECT_EQ(largest_difference(got, whole), 0);
}

TEST(Fp8Activations, WhatCannotBeRunSoIsRefusedWithTheReason) {
  const auto error = [](const fs::path& dir, int size) -> std::string {
    const auto config = load_model_config(dir);
    const auto model = RankModel::load(dir, *config, {.size = size, .fp8_activations = true},
                                       {.num_blocks = 8}, 64, {});
    return model ? "loaded" : model.error().message;
  };
  EXPECT_EQ(error(kFp8Model, 1), "loaded");
  EXPECT_THAT(error(kTinyModel, 1), HasSubstr("has no quantization_config"));
  EXPECT_THAT(error(kFp8Model, 2),
              HasSubstr("num_attention_heads times v_head_dim, 192, does not divide into such "
                        "blocks over 2 ranks"));
  Cut cut;
  cut.add_floats("model.layers.1.mlp.down_proj.weight", {128, 512});
  cut.dir.write("model.safetensors", safetensors_bytes(cut.tensors));
  EXPECT_THAT(error(cut.dir.path(), 1), HasSubstr("one of model.layers.1.mlp is not"));
}

}  // namespace
}  // namespace dsm::model
