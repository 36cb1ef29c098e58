#include "worker/model/quantization.h"

#include <nlohmann/json.hpp>

#include "worker/model/config_fields.h"
#include "worker/model/integer_config.h"

namespace dsm::model {
namespace {

using config_detail::Fields;
using config_detail::Json;
using config_detail::Wrong;

Fp8Blocks read_fp8(const Fields& fields) {
  fields.only_if_said("fmt", "e4m3");
  fields.only("weight_block_size", Json::array({128, 128}));
  fields.only_if_said("activation_scheme", "dynamic");
  fields.only_if_said("scale_fmt", "ue8m0");
  return {.rows = 128, .columns = 128, .power_of_two_scales = fields.has("scale_fmt")};
}

Quantization read(const Json& json) {
  if (!json.is_object()) throw Wrong{"field quantization_config is not an object"};
  const Fields fields(json, "quantization_config.");
  switch (fields.one_of("quant_method", {"fp8", "compressed-tensors", "gptq", "awq"})) {
    case 0:
      return {.fp8 = read_fp8(fields), .integers = {}};
    case 1:
      return {.fp8 = {}, .integers = config_detail::read_compressed_tensors(json)};
    case 2:
      return {.fp8 = {}, .integers = config_detail::read_gptq(json)};
    default:
      return {.fp8 = {}, .integers = config_detail::read_awq(json)};
  }
}

const char* name_of(kernels::DType dtype) {
  return dtype == kernels::DType::kInt4 ? "INT4" : "INT8";
}

}  // namespace

std::expected<Quantization, std::string> parse_quantization(const Json& json) {
  try {
    return read(json);
  } catch (const Wrong& wrong) {
    return std::unexpected(wrong.message);
  }
}

Status check_rounding(const std::optional<IntegerWeights>& stored,
                      std::optional<kernels::DType> round_to) {
  if (!stored || !round_to || *round_to == stored->dtype) return {};
  return fail(
      ErrorKind::kInvalid,
      std::string("weights are to be rounded to ") + name_of(*round_to) +
          ", but the checkpoint has them in " +
          (stored->zeros ? "INT4 with zero points, which are INT8 here," : name_of(stored->dtype)) +
          " already (quantization_config in config.json), and rounding twice is worse than "
          "once: take auto, or a checkpoint in BF16");
}

}  // namespace dsm::model
