// The public models whose shapes are measured, with random weights in BF16 or FP8: their
// config.json and the tensors of their checkpoints.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "worker/model/config.h"

namespace dsm::bench {

struct ModelShape {
  std::string name;
  std::string config;  // config.json
};
std::span<const ModelShape> public_shapes();
// Null: no public shape is called so.
const ModelShape* find_shape(std::string_view name);

// With weights in FP8 blocks, as DeepSeek's checkpoints have them.
ModelShape in_fp8(const ModelShape& shape);

struct Tensor {
  std::string name;
  std::vector<std::int64_t> shape;
  std::string dtype = "BF16";  // as safetensors names it
};
// Of the families llama, qwen2 and deepseek_v2 without query latents.
std::vector<Tensor> tensors_of(const model::ModelConfig& config);

// Writes config.json and model.safetensors into the folder, with values of either sign that mean
// nothing: from 1/128 on and below 1/64 in BF16 and FP32, numbers in FP8.
Status write_checkpoint(const ModelShape& shape, const std::filesystem::path& folder);

}  // namespace dsm::bench
