#include "sizing/shape.h"

#include <nlohmann/json.hpp>
#include <utility>

namespace dsm::sizing {
namespace {

using Json = nlohmann::json;

// Larger numbers are no model's; below them no product of the room's formulas leaves 64 bits.
constexpr std::int64_t kMostWidth = 1 << 18;
constexpr std::int64_t kMostVocab = 1 << 22;
constexpr std::int64_t kMostPositions = 1 << 24;
constexpr std::int64_t kMostHeads = 1024;
constexpr std::int64_t kMostHead = 1 << 16;
constexpr std::int64_t kMostLayers = 1024;
constexpr std::int64_t kMostExperts = 1024;

// null counts as absent: checkpoints write it for what they do not have.
bool has(const Json& json, const char* key) {
  return json.contains(key) && !json.at(key).is_null();
}

// Reads numbers into fields; the first mistake is kept.
class Numbers {
 public:
  explicit Numbers(const Json& json) : json_(json) {}

  void read(const char* key, std::int64_t least, std::int64_t most, std::int64_t& to) {
    if (!has(json_, key)) return complain(std::string("field ") + key + " is missing");
    const Json& value = json_.at(key);
    if (!value.is_number_integer()) {
      return complain(std::string("field ") + key + " is not an integer");
    }
    // An unsigned number beyond 63 bits becomes negative here, and is refused as such.
    const auto number = value.get<std::int64_t>();
    if (number < least || number > most) {
      return complain(std::string("field ") + key + " is " + value.dump() + ", outside " +
                      std::to_string(least) + ".." + std::to_string(most));
    }
    to = number;
  }
  void read_if_said(const char* key, std::int64_t least, std::int64_t most, std::int64_t& to) {
    if (has(json_, key)) read(key, least, most, to);
  }
  void complain(std::string mistake) {
    if (mistake_.empty()) mistake_ = std::move(mistake);
  }
  const std::string& mistake() const { return mistake_; }

 private:
  const Json& json_;
  std::string mistake_;
};

void read_grouped(const Json& json, Numbers& numbers, Shape& s) {
  numbers.read("num_attention_heads", 1, kMostHeads, s.heads);
  s.kv_heads = s.heads;
  numbers.read_if_said("num_key_value_heads", 1, kMostHeads, s.kv_heads);
  if (s.heads > 0) s.head = s.hidden / s.heads;
  numbers.read_if_said("head_dim", 1, kMostHead, s.head);
  if (s.head < 1) numbers.complain("head_dim, or hidden_size / num_attention_heads, is 0");
  s.rope = s.value = s.head;
  s.qkv_bias = json.at("model_type") == "qwen2";
  s.head_norms = json.at("model_type") == "qwen3";
  s.first_dense = s.layers;
}

void read_latent(Numbers& numbers, Shape& s) {
  s.latent = true;
  numbers.read("num_attention_heads", 1, kMostHeads, s.heads);
  s.kv_heads = s.heads;
  numbers.read_if_said("q_lora_rank", 1, kMostWidth, s.q_lora);
  numbers.read("kv_lora_rank", 1, kMostWidth, s.kv_lora);
  numbers.read("qk_nope_head_dim", 1, kMostHead, s.nope);
  numbers.read("qk_rope_head_dim", 1, kMostHead, s.rope);
  numbers.read("v_head_dim", 1, kMostHead, s.value);
}

void read_experts(Numbers& numbers, Shape& s) {
  numbers.read("first_k_dense_replace", 0, s.layers, s.first_dense);
  numbers.read_if_said("moe_layer_freq", 1, kMostLayers, s.moe_every);
  numbers.read("moe_intermediate_size", 1, kMostWidth, s.expert);
  numbers.read("n_routed_experts", 1, kMostExperts, s.experts);
  numbers.read("n_shared_experts", 1, 64, s.shared_experts);
  numbers.read("num_experts_per_tok", 1, kMostExperts, s.experts_per_token);
}

// A hint: what is stored is said by the files. Where it says nothing known it is taken for BF16.
Stored stored_as(const Json& json) {
  for (const char* key : {"dtype", "torch_dtype"}) {
    if (!has(json, key)) continue;
    if (json.at(key) == "float32") return Stored::kF32;
    if (json.at(key) == "float16") return Stored::kF16;
  }
  return Stored::kBf16;
}

bool is_fp8(const Json& json) {
  return json.is_object() && has(json, "quant_method") && json.at("quant_method") == "fp8";
}

Status read_stored(const Json& json, Shape& s) {
  s.stored = stored_as(json);
  if (!has(json, "quantization_config") || !is_fp8(json.at("quantization_config"))) return {};
  const Json& quantisation = json.at("quantization_config");
  s.fp8 = has(quantisation, "weight_block_size") &&
          quantisation.at("weight_block_size") == Json::array({128, 128});
  if (s.fp8) return {};
  return fail(ErrorKind::kNotFound,
              "quantization_config is not DeepSeek's fp8 in blocks of 128 x 128");
}

Status read(const Json& json, Shape& s) {
  if (!json.is_object()) return fail(ErrorKind::kInvalid, "is not a JSON object");
  const std::string type = has(json, "model_type") && json.at("model_type").is_string()
                               ? json.at("model_type").get<std::string>()
                               : "";
  if (type.empty()) return fail(ErrorKind::kInvalid, "field model_type is missing");
  const bool dense = type == "llama" || type == "qwen2" || type == "qwen3";
  const bool v3 = type == "deepseek_v3" || type == "deepseek_v32";
  if (!dense && !v3 && type != "deepseek_v2") {
    return fail(
        ErrorKind::kNotFound,
        "model_type is none of llama, qwen2, qwen3, deepseek_v2, deepseek_v3, deepseek_v32");
  }
  s.model_type = type;
  s.tied = has(json, "tie_word_embeddings") && json.at("tie_word_embeddings") == true;
  if (auto stored = read_stored(json, s); !stored) return stored;
  Numbers numbers(json);
  numbers.read("vocab_size", 1, kMostVocab, s.vocab);
  numbers.read("hidden_size", 1, kMostWidth, s.hidden);
  numbers.read("num_hidden_layers", 1, kMostLayers, s.layers);
  numbers.read("intermediate_size", 1, kMostWidth, s.mlp);
  numbers.read("max_position_embeddings", 1, kMostPositions, s.max_positions);
  if (dense) {
    read_grouped(json, numbers, s);
  } else {
    read_latent(numbers, s);
    read_experts(numbers, s);
    s.router_bias = v3;
    if (v3) numbers.read_if_said("num_nextn_predict_layers", 0, 64, s.mtp_layers);
  }
  if (type == "deepseek_v32") {
    numbers.read("index_n_heads", 1, kMostHeads, s.index_heads);
    numbers.read("index_head_dim", 1, kMostHead, s.index_head);
  }
  if (!numbers.mistake().empty()) return fail(ErrorKind::kInvalid, numbers.mistake());
  if (s.fp8 || !has(json, "quantization_config")) return {};
  auto integers = parse_integers(json, s);
  if (!integers) return std::unexpected(integers.error());
  s.integers = std::move(*integers);
  return {};
}

}  // namespace

Result<Shape> parse_shape(std::string_view config_json, std::string_view name) {
  Shape shape;
  const Json json = Json::parse(config_json, nullptr, /*allow_exceptions=*/false);
  if (auto done = read(json, shape); !done) return wrap(done.error(), name);
  return shape;
}

Status check_cut(const Shape& s, std::int64_t ranks) {
  const std::pair<const char*, std::int64_t> cut[] = {{"num_attention_heads", s.heads},
                                                      {"vocab_size", s.vocab},
                                                      {"intermediate_size", s.mlp},
                                                      {"moe_intermediate_size", s.expert}};
  for (const auto& [name, value] : cut) {
    if (value % ranks != 0) {
      return fail(ErrorKind::kInvalid, std::string(name) + " " + std::to_string(value) +
                                           " does not divide by tensor " + std::to_string(ranks));
    }
  }
  if (s.kv_heads % ranks != 0 && ranks % s.kv_heads != 0) {
    return fail(ErrorKind::kInvalid, "num_key_value_heads " + std::to_string(s.kv_heads) +
                                         " and tensor " + std::to_string(ranks) +
                                         ": one must be a multiple of the other");
  }
  return {};
}

Status check_expert_parallel(const Shape& s, std::int64_t ranks) {
  if (s.experts == 0) return fail(ErrorKind::kInvalid, s.model_type + " has no experts");
  if (s.experts % ranks == 0) return {};
  return fail(ErrorKind::kInvalid, "the model's " + std::to_string(s.experts) +
                                       " experts do not divide by " + std::to_string(ranks) +
                                       " ranks");
}

Status check_rounding(const Shape& s, int weight_bits) {
  if (weight_bits == 0 || s.integers.bits == 0 || weight_bits == s.integers.bits) return {};
  const std::string kind = s.integers.zeros ? "4 bits with zero points, which are 8 here,"
                                            : std::to_string(s.integers.bits) + " bits";
  return fail(ErrorKind::kInvalid, "the checkpoint's weights are integers of " + kind +
                                       " already (quantization_config), and rounding twice is "
                                       "worse than once");
}

Status check_data_parallel_attention(const Shape& s) {
  if (s.latent) return {};
  return fail(ErrorKind::kInvalid, "it is for DeepSeek's latent attention; " + s.model_type +
                                       " has KV heads, which ranks divide between them");
}

}  // namespace dsm::sizing
