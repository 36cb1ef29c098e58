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
  bool awq = false;
  int bits = 4;
  int group = 128;                 // inputs with one scale; 0: all
  const char* scale_type = "F16";  // or BF16, F32
  bool v2 = false;                 // GPTQ: zeros as they are, not less one
  bool zeros = false;              // each group has a zero point

  // Inputs are the tensors' rows.
  bool by_inputs() const { return gptq || awq; }
};

inline constexpr PackedForm kPackedForms[] = {
    {.name = "CompressedInt4", .bits = 4, .scale_type = "BF16"},
    {.name = "CompressedInt8", .bits = 8, .scale_type = "F32"},
    {.name = "CompressedInt8Channel", .bits = 8, .group = 0, .scale_type = "F16"},
    {.name = "GptqInt4", .gptq = true, .bits = 4},
    {.name = "GptqInt8V2", .gptq = true, .bits = 8, .v2 = true},
    {.name = "GptqInt4Channel", .gptq = true, .bits = 4, .group = 0, .scale_type = "BF16"},
    {.name = "CompressedInt4Zeros", .scale_type = "BF16", .zeros = true},
    {.name = "GptqInt4Zeros", .gptq = true, .zeros = true},
    {.name = "Awq", .awq = true, .zeros = true}};
// Further ones, which differ in small things.
inline constexpr PackedForm kOtherZeros[] = {
    {.name = "CompressedInt4ChannelZeros", .group = 0, .zeros = true},
    {.name = "GptqInt4V2Zeros", .gptq = true, .v2 = true, .zeros = true},
    {.name = "GptqInt4ChannelZeros", .gptq = true, .group = 0, .zeros = true}};

inline nlohmann::json quantization_config(const PackedForm& form) {
  if (form.awq) {
    return {{"quant_method", "awq"}, {"bits", 4},         {"group_size", 128},
            {"zero_point", true},    {"version", "gemm"}, {"modules_to_not_convert", nullptr}};
  }
  if (form.gptq) {
    return {{"quant_method", "gptq"},
            {"bits", form.bits},
            {"group_size", form.group == 0 ? -1 : form.group},
            {"sym", !form.zeros},
            {"desc_act", false},
            {"true_sequential", true},
            {"checkpoint_format", form.v2 ? "gptq_v2" : "gptq"}};
  }
  nlohmann::json weights = {
      {"num_bits", form.bits},    {"type", "int"},
      {"symmetric", !form.zeros}, {"strategy", form.group == 0 ? "channel" : "group"},
      {"group_size", nullptr},    {"dynamic", false},
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

// GPTQ's words, and AWQ's, do not hold what does not fill them.
inline bool can_be_packed(const TestTensor& weight, const PackedForm& form) {
  const int per_word = 32 / form.bits;
  return weight.shape.size() == 2 && (!form.by_inputs() || (weight.shape[0] % per_word == 0 &&
                                                            weight.shape[1] % per_word == 0));
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

// Words of a matrix of codes [rows, columns], which hold neighbours along the rows, or with `down`
// along the columns, the first in the lowest bits.
inline TestTensor packed_codes(std::int64_t rows, std::int64_t columns, int bits, bool down,
                               const std::vector<int>& codes) {
  const std::int64_t per_word = 32 / bits;
  const std::int64_t word_rows = down ? (rows + per_word - 1) / per_word : rows;
  const std::int64_t word_columns = down ? columns : (columns + per_word - 1) / per_word;
  std::vector<std::uint32_t> words(static_cast<std::size_t>(word_rows * word_columns));
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < columns; ++c) {
      const std::int64_t word =
          down ? r / per_word * word_columns + c : r * word_columns + c / per_word;
      words[static_cast<std::size_t>(word)] |=
          static_cast<std::uint32_t>(codes[static_cast<std::size_t>(r * columns + c)])
          << ((down ? r : c) % per_word * bits);
    }
  }
  return words_tensor({word_rows, word_columns}, words);
}

// [columns, rows] of [rows, columns].
inline std::vector<int> turned(std::int64_t rows, std::int64_t columns,
                               const std::vector<int>& codes) {
  std::vector<int> made(codes.size());
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < columns; ++c) {
      made[static_cast<std::size_t>(c * rows + r)] =
          codes[static_cast<std::size_t>(r * columns + c)];
    }
  }
  return made;
}

// AWQ's order of each eight neighbours in a row.
inline std::vector<int> interleaved(const std::vector<int>& codes) {
  std::vector<int> made(codes.size());
  for (std::size_t i = 0; i < codes.size(); ++i) {
    constexpr std::size_t kOrder[] = {0, 2, 4, 6, 1, 3, 5, 7};
    made[i] = codes[i / 8 * 8 + kOrder[i % 8]];
  }
  return made;
}

}  // namespace packed_detail

// Takes "X.weight" [outputs, inputs], of these values, out of the tensors and puts what it is in
// integers in its place. Returns the weights that these are.
inline std::vector<float> pack_weight(TestTensors& tensors, const std::string& name,
                                      const std::vector<float>& values, const PackedForm& form) {
  using packed_detail::interleaved;
  using packed_detail::packed_codes;
  using packed_detail::turned;
  const std::int64_t outputs = tensors.at(name).shape[0];
  const std::int64_t inputs = tensors.at(name).shape[1];
  tensors.erase(name);
  const std::int64_t group = form.group == 0 ? inputs : form.group;
  const std::int64_t groups = (inputs + group - 1) / group;
  const int middle = 1 << (form.bits - 1);
  const int most_code = 2 * middle - 1;
  std::vector<int> codes(values.size());                               // [outputs, inputs]
  std::vector<int> zeros(static_cast<std::size_t>(outputs * groups));  // [outputs, groups]
  std::vector<std::string> scales(zeros.size());                       // in the tensor's order
  std::vector<float> weights(values.size());
  for (std::int64_t j = 0; j < outputs; ++j) {
    for (std::int64_t g = 0; g < groups; ++g) {
      const std::int64_t begin = j * inputs + g * group;
      const std::int64_t end = j * inputs + std::min(inputs, (g + 1) * group);
      float low = -1e-3F;
      float high = 1e-3F;
      for (std::int64_t i = begin; i < end; ++i) {
        low = std::min(low, values[static_cast<std::size_t>(i)]);
        high = std::max(high, values[static_cast<std::size_t>(i)]);
      }
      const float range = form.zeros ? (high - low) / static_cast<float>(most_code)
                                     : std::max(-low, high) / static_cast<float>(middle);
      const auto [bytes, scale] = packed_detail::stored_scale(range, form.scale_type);
      // The older GPTQ has none for 0.
      const int least = form.gptq && !form.v2 ? 1 : 0;
      const int zero =
          form.zeros ? std::clamp(static_cast<int>(std::lround(-low / scale)), least, most_code)
                     : middle;
      zeros[static_cast<std::size_t>(j * groups + g)] = zero;
      scales[static_cast<std::size_t>(form.by_inputs() ? g * outputs + j : j * groups + g)] = bytes;
      for (std::int64_t i = begin; i < end; ++i) {
        const auto at = static_cast<std::size_t>(i);
        codes[at] =
            std::clamp(static_cast<int>(std::lround(values[at] / scale)) + zero, 0, most_code);
        weights[at] = static_cast<float>(codes[at] - zero) * scale;
      }
    }
  }
  std::string scale_bytes;
  for (const auto& scale : scales) scale_bytes += scale;
  const std::string module = name.substr(0, name.size() - std::string("weight").size());
  if (!form.by_inputs()) {
    tensors[module + "weight_packed"] = packed_codes(outputs, inputs, form.bits, false, codes);
    tensors[module + "weight_scale"] = {form.scale_type, {outputs, groups}, scale_bytes};
    if (form.zeros) {
      tensors[module + "weight_zero_point"] = packed_codes(outputs, groups, 4, true, zeros);
    }
    const std::int64_t shape[] = {outputs, inputs};
    tensors[module + "weight_shape"] = {
        "I64", {2}, {reinterpret_cast<const char*>(shape), sizeof shape}};
    return weights;
  }
  tensors[module + "scales"] = {form.scale_type, {groups, outputs}, scale_bytes};
  codes = turned(outputs, inputs, codes);
  zeros = turned(outputs, groups, zeros);
  if (form.awq) {
    tensors[module + "qweight"] = packed_codes(inputs, outputs, 4, false, interleaved(codes));
    tensors[module + "qzeros"] = packed_codes(groups, outputs, 4, false, interleaved(zeros));
    return weights;
  }
  if (!form.v2) {
    for (int& zero : zeros) --zero;
  }
  tensors[module + "qweight"] = packed_codes(inputs, outputs, form.bits, true, codes);
  tensors[module + "qzeros"] = packed_codes(groups, outputs, form.bits, false, zeros);
  std::vector<std::uint32_t> order(static_cast<std::size_t>(inputs));
  for (std::int64_t i = 0; i < inputs; ++i) {
    order[static_cast<std::size_t>(i)] = static_cast<std::uint32_t>(i / group);
  }
  tensors[module + "g_idx"] = packed_detail::words_tensor({inputs}, order);
  return weights;
}

}  // namespace dsm::model
