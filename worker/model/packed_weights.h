// Weights of a checkpoint that somebody else has rounded to integers: which tensors a weight
// "X.weight" is made of then, and whether they are what the worker's integers can hold.
//
//   compressed-tensors, "pack-quantized" (vllm-project/compressed-tensors,
//   compressors/pack_quantized): X.weight_packed I32 [outputs, ceil(inputs / 8 or 4)],
//   X.weight_scale [outputs, ceil(inputs / 128) or 1], X.weight_shape (outputs, inputs); with
//   activation order X.weight_g_idx, with zero points X.weight_zero_point I32 [ceil(outputs / 8),
//   as the scales], plus 8 as the weights are. GPTQ (AutoGPTQ and GPTQModel, nn_modules/qlinear):
//   X.qweight I32 [inputs / 8 or 4, outputs], X.scales [ceil(inputs / 128) or 1, outputs], X.qzeros
//   I32 [the same, outputs / 8 or 4], in the older format less one, X.g_idx I32 [inputs]. AWQ
//   (AutoAWQ, awq/modules/linear/gemm.py): X.qweight I32 [inputs, outputs / 8], X.scales and
//   X.qzeros as GPTQ's, not less one; words of both hold outputs 0, 2, 4, 6, 1, 3, 5, 7 from the
//   lowest bits on.
//
// Names, types and shapes are checked when a weight is asked for, and what stands in the small
// tensors beside it by check_values(), which reads them. Pure but for that; for any thread.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "kernels/cpu/pack.h"
#include "worker/model/quantization.h"
#include "worker/model/safetensors.h"

namespace dsm::model {

struct PackedWeight {
  // All of it: n are the outputs, k the inputs.
  kernels::WeightPiece piece;
  IntegerWeights kind;
  std::string name;  // X.weight
  // Of which check_values() has something to say; without bytes: there is none.
  TensorView shape;
  TensorView order;
  TensorView zeros;

  // That check_values() reads.
  std::int64_t checked_bytes() const {
    return static_cast<std::int64_t>(shape.bytes.size() + order.bytes.size() + zeros.bytes.size());
  }
};

// Whether the checkpoint has weight `name` in integers. Which weights are is said by the names of
// tensors, as the configuration's lists of modules (`targets`, `ignore`, `dynamic`) say it, too.
bool has_packed(const Checkpoint& checkpoint, const IntegerWeights& kind, const std::string& name);

// kInvalid, with the file and the tensor, when a tensor is missing or is not as `kind` says.
Result<PackedWeight> packed_weight(const Checkpoint& checkpoint, const IntegerWeights& kind,
                                   const std::string& name, std::int64_t outputs,
                                   std::int64_t inputs);

// kInvalid, with the file and the tensor, when inputs that share a scale do not stand together, a
// zero point is not one that config.json lets expect, or the weight says that it is of another
// shape.
Status check_values(const Checkpoint& checkpoint, const PackedWeight& weight);

}  // namespace dsm::model
