// `quantization_config` of config.json: which weights of a checkpoint are quantised and how. Which
// tensors are is said by their dtype or their names: the others stay as they are. Accepted are
//
//   DeepSeek's FP8 in blocks: X.weight in F8_E4M3 with X.weight_scale_inv, one scale for each
//   block, by which (in spite of its name) a value is multiplied;
//   integers, one scale for 128 inputs of an output or for all of them, as compressed-tensors
//   ("pack-quantized"), GPTQ and AWQ write them (packed_weights.h): of 4 or 8 bits without zero
//   points, of 4 with them.
#pragma once

#include <expected>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "base/result.h"
#include "kernels/params.h"

namespace dsm::model {

struct Fp8Blocks {
  int rows = 0;     // of a block: outputs
  int columns = 0;  // inputs
  // scale_fmt ue8m0: scales are powers of two. Those of weights are what is stored; this is about
  // scales of activations, which the default computation does not have (docs/architecture.md).
  bool power_of_two_scales = false;
};

// Weights that somebody else has rounded to integers.
struct IntegerWeights {
  enum class Layout { kCompressedTensors, kGptq, kAwq };
  Layout layout = Layout::kCompressedTensors;
  // Here; kInt8 also of 4 bits with zero points, of which a number less its zero point needs 5.
  kernels::DType dtype = kernels::DType::kInt4;
  int group = 0;        // inputs of an output that have one scale: 128; 0: all
  int stored_zero = 0;  // kGptq without zero points: what qzeros hold for each output and group
  bool zeros = false;   // each output and group has a zero point
  bool zeros_less_one = false;  // as the older GPTQ writes them

  // Of a number in the checkpoint.
  int bits() const { return zeros || dtype == kernels::DType::kInt4 ? 4 : 8; }
  bool operator==(const IntegerWeights&) const = default;
};

// One of the two.
struct Quantization {
  std::optional<Fp8Blocks> fp8;
  std::optional<IntegerWeights> integers;
};

// The error is a sentence that names the option.
std::expected<Quantization, std::string> parse_quantization(const nlohmann::json& json);

// kInvalid when weights that are integers already would be rounded to others.
Status check_rounding(const std::optional<IntegerWeights>& stored,
                      std::optional<kernels::DType> round_to);

}  // namespace dsm::model
