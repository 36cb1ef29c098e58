// Checkpoints whose weights are integers, written by the definitions of their formats
// (worker/model/packed_weights.h says where these are from): a weight becomes its integers and
// scales, and what these are in FP32 is told.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/model/checkpoint_writer.h"
#include "worker/model/quantization.h"

namespace dsm::model {

struct PackedForm {
  const char* name;  // of the form, for tests
  bool gptq = false;
  int bits = 4;
  int group = 128;                 // inputs with one scale; 0: all
  const char* scale_type = "F16";  // or BF16, F32
  bool v2 = false;                 // GPTQ: zeros as they are, not less one
};

inline constexpr PackedForm kPackedForms[] = {
    {.name = "CompressedInt4", .bits = 4, .scale_type = "BF16"},
    {.name = "CompressedInt8", .bits = 8, .scale_type = "F32"},
    {.name = "CompressedInt8Channel", .bits = 8, .group = 0, .scale_type = "F16"},
    {.name = "GptqInt4", .gptq = true, .bits = 4},
    {.name = "GptqInt8V2", .gptq = true, .bits = 8, .v2 = true},
    {.name = "GptqInt4Channel", .gptq = true, .bits = 4, .group = 0, .scale_type = "BF16"}};

inline nlohmann::json quantization_config(const PackedForm& form) {
  if (form.gptq) {
    return {{"quant_method", "gptq"},
            {"bits", form.bits},
            {"group_size", form.group == 0 ? -1 : form.group},
            {"sym", true},
            {"desc_act", false},
            {"true_sequential", true},
            {"checkpoint_format", form.v2 ? "gptq_v2" : "gptq"}};
  }
  nlohmann::json weights = {
      {"num_bits", form.bits}, {"type", "int"},
      {"symmetric", true},     {"strategy", form.group == 0 ? "channel" : "group"},
      {"group_size", nullptr}, {"dynamic", false},
      {"actorder", nullptr}};
  if (form.group > 0) weights["group_size"] = form.group;
  return {{"quant_method", "compressed-tensors"},
          {"format", "pack-quantized"},
          {"quantization_status", "compressed"},
          {"kv_cache_scheme", nullptr},
          {"ignore", {"lm_head"}},
          {"config_groups",
           {{"group_0",
             {{"targets", {"Linear"}},
              {"input_activations", nullptr},
              {"output_activations", nullptr},
              {"weights", weights}}}}}};
}

// GPTQ's words do not hold what does not fill them.
inline bool can_be_packed(const TestTensor& weight, const PackedForm& form) {
  const int per_word = 32 / form.bits;
  return weight.shape.size() == 2 &&
         (!form.gptq || (weight.shape[0] % per_word == 0 && weight.shape[1] % per_word == 0));
}

namespace packed_detail {

// The numbers of 16 bits below a positive one that is not too small for FP16.
inline std::uint16_t cut_to_bf16(float value) {
  return static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(value) >> 16);
}
inline std::uint16_t cut_to_f16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(std::max(value, 0x1p-14F));
  return static_cast<std::uint16_t>((bits >> 13) - ((127U - 15U) << 10));
}

// A scale as it is stored, and what it is worth.
inline std::pair<std::string, float> stored_scale(float scale, const std::string& type) {
  std::uint32_t bits = std::bit_cast<std::uint32_t>(scale);
  std::size_t size = 2;
  float worth = scale;
  if (type == "BF16") {
    bits = cut_to_bf16(scale);
    worth = std::bit_cast<float>(bits << 16);
  } else if (type == "F16") {
    bits = cut_to_f16(scale);
    worth = std::ldexp(static_cast<float>((bits & 1023U) | 1024U),
                       static_cast<int>(bits >> 10) - 15 - 10);
  } else {
    size = 4;
  }
  return {{reinterpret_cast<const char*>(&bits), size}, worth};
}

inline TestTensor words_tensor(std::vector<std::int64_t> shape,
                               const std::vector<std::uint32_t>& words) {
  return {"I32",
          std::move(shape),
          {reinterpret_cast<const char*>(words.data()), words.size() * sizeof(std::uint32_t)}};
}

}  // namespace packed_detail

// Takes "X.weight" [outputs, inputs], of these values, out of the tensors and puts what it is in
// integers in its place. Returns the weights that these are.
inline std::vector<float> pack_weight(TestTensors& tensors, const std::string& name,
                                      const std::vector<float>& values, const PackedForm& form) {
  using packed_detail::words_tensor;
  const std::int64_t outputs = tensors.at(name).shape[0];
  const std::int64_t inputs = tensors.at(name).shape[1];
  tensors.erase(name);
  const std::int64_t group = form.group == 0 ? inputs : form.group;
  const std::int64_t groups = (inputs + group - 1) / group;
  const std::int64_t per_word = 32 / form.bits;
  const std::int64_t across = (inputs + per_word - 1) / per_word;
  const int lowest = -(1 << (form.bits - 1));
  std::vector<std::uint32_t> words(static_cast<std::size_t>(outputs * across));
  std::vector<std::string> scales(static_cast<std::size_t>(outputs * groups));
  std::vector<float> weights(values.size());
  for (std::int64_t j = 0; j < outputs; ++j) {
    for (std::int64_t g = 0; g < groups; ++g) {
      const std::int64_t end = std::min(inputs, (g + 1) * group);
      float most = 1e-3F;
      for (std::int64_t i = g * group; i < end; ++i) {
        most = std::max(most, std::abs(values[static_cast<std::size_t>(j * inputs + i)]));
      }
      const auto [bytes, scale] =
          packed_detail::stored_scale(most / static_cast<float>(-lowest), form.scale_type);
      scales[static_cast<std::size_t>(form.gptq ? g * outputs + j : j * groups + g)] = bytes;
      for (std::int64_t i = g * group; i < end; ++i) {
        const auto at = static_cast<std::size_t>(j * inputs + i);
        const int number =
            std::clamp(static_cast<int>(std::lround(values[at] / scale)), lowest, -lowest - 1);
        weights[at] = static_cast<float>(number) * scale;
        const std::int64_t word =
            form.gptq ? i / per_word * outputs + j : j * across + i / per_word;
        words[static_cast<std::size_t>(word)] |= static_cast<std::uint32_t>(number - lowest)
                                                 << (i % per_word * form.bits);
      }
    }
  }
  std::string scale_bytes;
  for (const auto& scale : scales) scale_bytes += scale;
  const std::string module = name.substr(0, name.size() - std::string("weight").size());
  if (!form.gptq) {
    tensors[module + "weight_packed"] = words_tensor({outputs, across}, words);
    tensors[module + "weight_scale"] = {form.scale_type, {outputs, groups}, scale_bytes};
    const std::int64_t shape[] = {outputs, inputs};
    tensors[module + "weight_shape"] = {
        "I64", {2}, {reinterpret_cast<const char*>(shape), sizeof shape}};
    return weights;
  }
  tensors[module + "qweight"] = words_tensor({across, outputs}, words);
  tensors[module + "scales"] = {form.scale_type, {groups, outputs}, scale_bytes};
  std::uint32_t zeros = 0;
  for (std::int64_t i = 0; i < per_word; ++i) {
    zeros |= static_cast<std::uint32_t>(-lowest - (form.v2 ? 0 : 1)) << (i * form.bits);
  }
  tensors[module + "qzeros"] = words_tensor(
      {groups, outputs / per_word},
      std::vector<std::uint32_t>(static_cast<std::size_t>(groups * (outputs / per_word)), zeros));
  std::vector<std::uint32_t> order(static_cast<std::size_t>(inputs));
  for (std::int64_t i = 0; i < inputs; ++i) {
    order[static_cast<std::size_t>(i)] = static_cast<std::uint32_t>(i / group);
  }
  tensors[module + "g_idx"] = words_tensor({inputs}, order);
  return weights;
}

}  // namespace dsm::model
