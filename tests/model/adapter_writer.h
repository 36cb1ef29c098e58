// Writes LoRA adapters as PEFT does, with random weights, for tests.
#pragma once

#include <random>
#include <string>
#include <vector>

#include "tests/model/checkpoint_writer.h"

namespace dsm::model {

// One linear of the model: "model.layers.0.mlp.up_proj" and its sizes.
struct TestModule {
  std::string name;
  int outputs = 0;
  int inputs = 0;
};

inline TestTensor random_f32(int rows, int columns, std::mt19937& random, float size) {
  std::normal_distribution<float> normal(0.0F, size);
  TestTensor tensor{.dtype = "F32", .shape = {rows, columns}, .bytes = {}};
  for (int i = 0; i < rows * columns; ++i) {
    const float value = normal(random);
    tensor.bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  return tensor;
}

inline TestTensors adapter_tensors(const std::vector<TestModule>& modules, int rank,
                                   unsigned seed) {
  std::mt19937 random(seed);
  TestTensors tensors;
  for (const auto& [name, outputs, inputs] : modules) {
    const std::string prefix = "base_model.model." + name;
    tensors[prefix + ".lora_A.weight"] = random_f32(rank, inputs, random, 0.2F);
    tensors[prefix + ".lora_B.weight"] = random_f32(outputs, rank, random, 0.2F);
  }
  return tensors;
}

inline nlohmann::json adapter_config(int rank) {
  return {{"peft_type", "LORA"}, {"r", rank},         {"lora_alpha", 2 * rank},
          {"bias", "none"},      {"use_dora", false}, {"target_modules", "all-linear"}};
}

inline void write_adapter(const std::filesystem::path& dir, const nlohmann::json& config,
                          const TestTensors& tensors) {
  std::filesystem::create_directories(dir);
  std::ofstream(dir / "adapter_config.json") << config.dump();
  std::ofstream(dir / "adapter_model.safetensors", std::ios::binary) << safetensors_bytes(tensors);
}

}  // namespace dsm::model
