// The tiny DeepSeek-V2-Lite with heads as wide as panels of packed weights, as all public models
// have them: its own are narrower.
#pragma once

#include <string>

#include "kernels/random_floats.h"
#include "tests/model/checkpoint_writer.h"

namespace dsm::model {

inline constexpr const char* kLiteModel = "tests/goldens/families/deepseek_v2_lite";

inline TestTensor random_bf16(std::int64_t n, std::int64_t k, unsigned seed) {
  TestTensor tensor{"BF16", {n, k}, {}};
  for (const float value : kernels::random_floats(static_cast<std::size_t>(n * k), seed, 0.15F)) {
    char bytes[sizeof value];
    std::memcpy(bytes, &value, sizeof value);
    tensor.bytes.append(bytes + 2, 2);  // of its four, the higher ones
  }
  return tensor;
}

inline void write_wide_heads(const TestDir& dir) {
  constexpr int kHeads = 4;
  constexpr int kHidden = 32;
  constexpr int kLatent = 32;
  constexpr int kNope = 64;
  constexpr int kRope = 16;
  constexpr int kValue = 64;
  const std::string from = kLiteModel;
  std::ifstream file(from + "/config.json");
  auto config = nlohmann::json::parse(file);
  config["qk_nope_head_dim"] = kNope;
  config["v_head_dim"] = kValue;
  config["max_position_embeddings"] = 2048;
  TestTensors tensors = read_safetensors(from + "/model.safetensors");
  for (unsigned layer = 0; layer < config["num_hidden_layers"].get<unsigned>(); ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".self_attn.";
    tensors.at(prefix + "q_proj.weight") =
        random_bf16(kHeads * (kNope + kRope), kHidden, 10 * layer + 1);
    tensors.at(prefix + "kv_b_proj.weight") =
        random_bf16(kHeads * (kNope + kValue), kLatent, 10 * layer + 2);
    tensors.at(prefix + "o_proj.weight") = random_bf16(kHidden, kHeads * kValue, 10 * layer + 3);
  }
  dir.write("config.json", config.dump());
  dir.write("model.safetensors", safetensors_bytes(tensors));
}

}  // namespace dsm::model
