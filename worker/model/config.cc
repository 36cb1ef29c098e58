#include "worker/model/config.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "kernels/params.h"

namespace dsm::model {
namespace {

using Json = nlohmann::json;

// The first thing that was wrong, as a sentence; thrown inside this file only.
struct Wrong {
  std::string message;
};

constexpr std::int64_t kMaxDimension = 1 << 24;
// Of one head: times the number of heads it still counts in an int.
constexpr std::int64_t kMaxHeadDimension = 1 << 16;

class Fields {
 public:
  Fields(const Json& object, std::string prefix) : object_(object), prefix_(std::move(prefix)) {}

  bool has(const char* key) const { return object_.contains(key) && !object_.at(key).is_null(); }

  const Json& at(const char* key) const {
    if (!has(key)) throw Wrong{"field " + prefix_ + key + " is missing"};
    return object_.at(key);
  }

  int integer(const char* key, std::int64_t low, std::int64_t high = kMaxDimension) const {
    const Json& value = at(key);
    if (!value.is_number_integer()) throw Wrong{"field " + prefix_ + key + " is not an integer"};
    const auto number = value.get<std::int64_t>();
    if (number < low || number > high) {
      throw Wrong{"field " + prefix_ + key + " is " + std::to_string(number) + ", outside " +
                  std::to_string(low) + ".." + std::to_string(high)};
    }
    return static_cast<int>(number);
  }

  double positive(const char* key) const {
    const Json& value = at(key);
    if (!value.is_number() || !(value.get<double>() > 0) || !(value.get<double>() < 1e12)) {
      throw Wrong{"field " + prefix_ + key + " is not a positive number"};
    }
    return value.get<double>();
  }

  bool boolean(const char* key) const {
    const Json& value = at(key);
    if (!value.is_boolean()) throw Wrong{"field " + prefix_ + key + " is not true or false"};
    return value.get<bool>();
  }

  // Refuses any value but the one that is built in the graph.
  void only(const char* key, const Json& wanted) const {
    const Json& value = at(key);
    if (value != wanted) {
      throw Wrong{"option " + prefix_ + key + " = " + value.dump() + " is not supported, only " +
                  wanted.dump()};
    }
  }
  void only_if_said(const char* key, const Json& wanted) const {
    if (has(key)) only(key, wanted);
  }
  void refuse(const char* key) const {
    if (has(key)) throw Wrong{"option " + prefix_ + key + " is not supported"};
  }

 private:
  const Json& object_;
  std::string prefix_;
};

void need(bool ok, const std::string& message) {
  if (!ok) throw Wrong{message};
}

void need_multiple(const char* name, int value, int unit) {
  need(value % unit == 0, std::string(name) + " " + std::to_string(value) +
                              " is not a multiple of " + std::to_string(unit));
}

YarnConfig read_yarn(const Json& json) {
  if (!json.is_object()) throw Wrong{"field rope_scaling is not an object"};
  const Fields fields(json, "rope_scaling.");
  fields.only(fields.has("rope_type") ? "rope_type" : "type", "yarn");
  fields.refuse("attention_factor");
  YarnConfig yarn;
  yarn.factor = fields.positive("factor");
  yarn.beta_fast = fields.positive("beta_fast");
  yarn.beta_slow = fields.positive("beta_slow");
  yarn.mscale = fields.positive("mscale");
  yarn.mscale_all_dim = fields.positive("mscale_all_dim");
  yarn.original_max_position = fields.integer("original_max_position_embeddings", 1);
  need(yarn.factor >= 1, "field rope_scaling.factor is below 1");
  return yarn;
}

std::vector<std::int32_t> read_eos(const Fields& fields) {
  if (!fields.has("eos_token_id")) return {};
  const Json& value = fields.at("eos_token_id");
  std::vector<std::int32_t> ids;
  for (const Json& id : value.is_array() ? value : Json::array({value})) {
    if (!id.is_number_integer())
      throw Wrong{"field eos_token_id is not an integer or a list of them"};
    ids.push_back(id.get<std::int32_t>());
  }
  return ids;
}

void read_attention(const Fields& fields, ModelConfig& c) {
  fields.only_if_said("attention_bias", false);
  c.num_heads = fields.integer("num_attention_heads", 1, 1024);
  if (fields.has("num_key_value_heads")) {
    need(fields.integer("num_key_value_heads", 1) == c.num_heads,
         "num_key_value_heads differs from num_attention_heads");
  }
  if (!fields.has("q_lora_rank")) {
    throw Wrong{"a query projection without q_lora_rank is not supported"};
  }
  c.q_lora_rank = fields.integer("q_lora_rank", 1);
  c.kv_lora_rank = fields.integer("kv_lora_rank", 1);
  c.qk_nope_head_dim = fields.integer("qk_nope_head_dim", 1, kMaxHeadDimension);
  c.qk_rope_head_dim = fields.integer("qk_rope_head_dim", 2, kMaxHeadDimension);
  c.v_head_dim = fields.integer("v_head_dim", 1, kMaxHeadDimension);
  // Vectors of 16 lanes run over these without a tail.
  need_multiple("hidden_size", c.hidden_size, 16);
  need_multiple("q_lora_rank", c.q_lora_rank, 16);
  need_multiple("kv_lora_rank", c.kv_lora_rank, 16);
  need_multiple("qk_rope_head_dim", c.qk_rope_head_dim, 16);

  fields.refuse("rope_parameters");
  fields.only_if_said("rope_interleave", true);
  c.rope_theta = fields.positive("rope_theta");
  if (fields.has("rope_scaling")) c.yarn = read_yarn(fields.at("rope_scaling"));
  c.max_positions = fields.integer("max_position_embeddings", 1);
}

void read_experts(const Fields& fields, ModelConfig& c) {
  fields.only("scoring_func", "sigmoid");
  fields.only("topk_method", "noaux_tc");
  fields.only_if_said("moe_layer_freq", 1);
  c.first_dense_layers = fields.integer("first_k_dense_replace", 0, c.num_layers);
  c.moe_intermediate_size = fields.integer("moe_intermediate_size", 1);
  c.num_experts = fields.integer("n_routed_experts", 1, kernels::kMaxExperts);
  c.num_shared_experts = fields.integer("n_shared_experts", 1, 64);
  c.experts_per_token = fields.integer("num_experts_per_tok", 1, kernels::kMaxTopK);
  c.num_groups = fields.integer("n_group", 1, c.num_experts);
  c.topk_groups = fields.integer("topk_group", 1, c.num_groups);
  c.normalise_topk = fields.boolean("norm_topk_prob");
  c.routed_scale = fields.positive("routed_scaling_factor");
  need(c.num_experts % c.num_groups == 0, "n_routed_experts " + std::to_string(c.num_experts) +
                                              " does not divide into n_group " +
                                              std::to_string(c.num_groups));
  const int group_size = c.num_experts / c.num_groups;
  need(group_size >= 2, "a group has fewer than the two experts that score it");
  need(c.experts_per_token <= c.topk_groups * group_size,
       "num_experts_per_tok " + std::to_string(c.experts_per_token) + " exceeds the " +
           std::to_string(c.topk_groups * group_size) + " experts of topk_group groups");
}

ModelConfig read_config(const Json& json) {
  if (!json.is_object()) throw Wrong{"not a JSON object"};
  const Fields fields(json, "");
  ModelConfig c;
  fields.only("model_type", "deepseek_v3");
  c.model_type = "deepseek_v3";
  if (fields.has("architectures"))
    fields.only("architectures", Json::array({"DeepseekV3ForCausalLM"}));
  fields.refuse("quantization_config");
  fields.only("hidden_act", "silu");
  c.vocab_size = fields.integer("vocab_size", 1);
  c.hidden_size = fields.integer("hidden_size", 1);
  c.num_layers = fields.integer("num_hidden_layers", 1, 1024);
  c.intermediate_size = fields.integer("intermediate_size", 1);
  c.rms_eps = fields.positive("rms_norm_eps");
  c.tied_embeddings = fields.boolean("tie_word_embeddings");
  read_attention(fields, c);
  read_experts(fields, c);
  if (fields.has("bos_token_id")) c.bos_token = fields.integer("bos_token_id", 0);
  c.eos_tokens = read_eos(fields);
  return c;
}

}  // namespace

Result<ModelConfig> parse_model_config(std::string_view text, std::string_view name) {
  try {
    return read_config(Json::parse(text));
  } catch (const Wrong& wrong) {
    return fail(ErrorKind::kInvalid, std::string(name) + ": " + wrong.message);
  } catch (const Json::exception& error) {
    return fail(ErrorKind::kInvalid, std::string(name) + ": " + error.what());
  }
}

Result<ModelConfig> load_model_config(const std::filesystem::path& dir) {
  const auto path = dir / "config.json";
  std::ifstream file(path, std::ios::binary);
  if (!file) return fail(ErrorKind::kNotFound, path.string() + ": cannot be opened");
  std::ostringstream text;
  text << file.rdbuf();
  return parse_model_config(text.str(), path.string());
}

Status check_tensor_parallel(const ModelConfig& c, int ranks) {
  if (ranks != 1 && ranks != 2 && ranks != 4 && ranks != 8) {
    return fail(ErrorKind::kInvalid, "tensor parallel size " + std::to_string(ranks) +
                                         " is not supported, only 1, 2, 4 or 8");
  }
  const std::pair<const char*, int> cut[] = {{"num_attention_heads", c.num_heads},
                                             {"vocab_size", c.vocab_size},
                                             {"intermediate_size", c.intermediate_size},
                                             {"moe_intermediate_size", c.moe_intermediate_size}};
  for (const auto& [name, value] : cut) {
    if (value % ranks != 0) {
      return fail(ErrorKind::kInvalid, std::string(name) + " " + std::to_string(value) +
                                           " does not divide by tensor parallel size " +
                                           std::to_string(ranks));
    }
  }
  return {};
}

}  // namespace dsm::model
