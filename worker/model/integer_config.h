// `quantization_config` of checkpoints whose weights are integers. What does not fit the worker's
// own integers (a scale for 128 inputs that stand together, or for all of an output; zero points
// with 4 bits, so that 8 hold what is left) is refused by the name of its option. Internal to
// quantization.cc.
//
// The options are those of compressed-tensors' QuantizationConfig and QuantizationArgs
// (vllm-project/compressed-tensors, src/compressed_tensors/quantization) and of GPTQModel's
// QuantizeConfig (ModelCloud/GPTQModel, gptqmodel/quantization/config.py), whose files AutoGPTQ's
// are, too; of AWQ those of AutoAWQ's AwqConfig (casper-hansen/AutoAWQ, awq/models/_config.py).
#pragma once

#include "worker/model/config_fields.h"
#include "worker/model/quantization.h"

namespace dsm::model::config_detail {

// All throw Wrong.
IntegerWeights read_compressed_tensors(const Json& json);
IntegerWeights read_gptq(const Json& json);
IntegerWeights read_awq(const Json& json);

}  // namespace dsm::model::config_detail
