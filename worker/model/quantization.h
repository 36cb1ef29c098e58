// `quantization_config` of config.json: which weights of a checkpoint are quantised and how. Only
// DeepSeek's FP8 in blocks is accepted: X.weight in F8_E4M3 with X.weight_scale_inv, one scale for
// each block, by which (in spite of its name) a value is multiplied. Which tensors are quantised is
// said by their dtype: the others stay as they are.
#pragma once

#include <expected>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace dsm::model {

struct Fp8Blocks {
  int rows = 0;     // of a block: outputs
  int columns = 0;  // inputs
  // scale_fmt ue8m0: scales are powers of two. Those of weights are what is stored; this is about
  // scales of activations, which the default computation does not have (docs/architecture.md).
  bool power_of_two_scales = false;
};

// The error is a sentence that names the option.
std::expected<Fp8Blocks, std::string> parse_quantization(const nlohmann::json& json);

}  // namespace dsm::model
