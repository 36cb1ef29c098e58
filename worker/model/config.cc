#include "worker/model/config.h"

#include <array>
#include <fstream>
#include <sstream>

#include "kernels/params.h"
#include "worker/model/config_fields.h"
#include "worker/model/config_rope.h"

namespace dsm::model {
namespace {

using config_detail::Fields;
using config_detail::Json;
using config_detail::need;
using config_detail::need_multiple;
using config_detail::read_rope;
using config_detail::RopeType;
using config_detail::Wrong;

// Of one head: times the number of heads it still counts in an int.
constexpr std::int64_t kMaxHeadDimension = 1 << 16;
constexpr int kMaxHeads = 1024;

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

void read_latent_attention(const Fields& fields, ModelConfig& c) {
  c.attention = AttentionKind::kLatent;
  fields.only_if_said("attention_bias", false);
  c.num_heads = fields.integer("num_attention_heads", 1, kMaxHeads);
  c.num_kv_heads = c.num_heads;
  need(fields.integer_or("num_key_value_heads", 1, kMaxHeads, c.num_heads) == c.num_heads,
       "num_key_value_heads differs from num_attention_heads");
  c.q_lora_rank = fields.integer_or("q_lora_rank", 1, config_detail::kMaxDimension, 0);
  c.kv_lora_rank = fields.integer("kv_lora_rank", 1);
  c.qk_nope_head_dim = fields.integer("qk_nope_head_dim", 1, kMaxHeadDimension);
  c.qk_rope_head_dim = fields.integer("qk_rope_head_dim", 2, kMaxHeadDimension);
  c.v_head_dim = fields.integer("v_head_dim", 1, kMaxHeadDimension);
  // Vectors of 16 lanes run over these without a tail.
  need_multiple("q_lora_rank", c.q_lora_rank, 16);
  need_multiple("kv_lora_rank", c.kv_lora_rank, 16);
  need_multiple("qk_rope_head_dim", c.qk_rope_head_dim, 16);
  fields.only_if_said("rope_interleave", true);
  c.rope = read_rope(fields, {RopeType::kDefault, RopeType::kYarn});
}

void read_grouped_attention(const Fields& fields, ModelConfig& c) {
  c.attention = AttentionKind::kGrouped;
  c.num_heads = fields.integer("num_attention_heads", 1, kMaxHeads);
  c.num_kv_heads = fields.integer_or("num_key_value_heads", 1, kMaxHeads, c.num_heads);
  need(c.num_heads % c.num_kv_heads == 0, "num_attention_heads " + std::to_string(c.num_heads) +
                                              " does not divide into num_key_value_heads " +
                                              std::to_string(c.num_kv_heads));
  const int head_dim = fields.integer_or("head_dim", 2, kMaxHeadDimension, 0);
  need(head_dim > 0 || c.hidden_size % c.num_heads == 0,
       "without head_dim, hidden_size " + std::to_string(c.hidden_size) +
           " must be a multiple of num_attention_heads " + std::to_string(c.num_heads));
  c.qk_rope_head_dim = head_dim > 0 ? head_dim : c.hidden_size / c.num_heads;
  c.v_head_dim = c.qk_rope_head_dim;
  need_multiple("head_dim", c.qk_rope_head_dim, 16);
  need(c.qk_rope_head_dim <= kMaxHeadDimension,
       "head_dim " + std::to_string(c.qk_rope_head_dim) + " is too large");
  fields.only_if_said("mlp_bias", false);
  fields.only_if_said("partial_rotary_factor", 1.0);
}

void read_experts(const Fields& fields, ModelConfig& c) {
  c.first_dense_layers = fields.integer("first_k_dense_replace", 0, c.num_layers);
  c.moe_layer_freq = fields.integer_or("moe_layer_freq", 1, c.num_layers, 1);
  c.moe_intermediate_size = fields.integer("moe_intermediate_size", 1);
  c.num_experts = fields.integer("n_routed_experts", 1, kernels::kMaxExperts);
  c.num_shared_experts = fields.integer("n_shared_experts", 1, 64);
  c.experts_per_token = fields.integer("num_experts_per_tok", 1, kernels::kMaxTopK);
  c.normalise_topk = fields.boolean("norm_topk_prob");
  c.routed_scale = fields.positive("routed_scaling_factor");
}

void read_groups(const Fields& fields, ModelConfig& c) {
  c.num_groups = fields.integer("n_group", 1, c.num_experts);
  c.topk_groups = fields.integer("topk_group", 1, c.num_groups);
  need(c.num_experts % c.num_groups == 0, "n_routed_experts " + std::to_string(c.num_experts) +
                                              " does not divide into n_group " +
                                              std::to_string(c.num_groups));
}

void check_top_k(const ModelConfig& c) {
  const int reachable = c.num_experts / c.num_groups * c.topk_groups;
  need(c.experts_per_token <= reachable,
       "num_experts_per_tok " + std::to_string(c.experts_per_token) + " exceeds the " +
           std::to_string(reachable) + " experts of topk_group groups");
}

void read_llama(const Fields& fields, ModelConfig& c) {
  fields.only_if_said("attention_bias", false);
  read_grouped_attention(fields, c);
  c.rope = read_rope(fields, {RopeType::kDefault, RopeType::kLinear, RopeType::kLlama3});
  c.rope.halves = true;
  c.first_dense_layers = c.num_layers;
}

// What Qwen2 and Qwen3 have alike.
void read_qwen(const Fields& fields, ModelConfig& c) {
  read_grouped_attention(fields, c);
  // Layers from max_window_layers on would have the window.
  need(!fields.boolean_or("use_sliding_window", false) ||
           fields.integer_or("max_window_layers", 0, config_detail::kMaxDimension, 0) >=
               c.num_layers,
       "option use_sliding_window = true is not supported, only false");
  if (fields.has("layer_types")) {
    for (const Json& type : fields.at("layer_types")) {
      need(type == "full_attention",
           "option layer_types with " + type.dump() + " is not supported, only full_attention");
    }
  }
  c.first_dense_layers = c.num_layers;
}

void read_qwen2(const Fields& fields, ModelConfig& c) {
  read_qwen(fields, c);
  c.qkv_bias = true;
  c.rope = read_rope(fields, {RopeType::kDefault});
  c.rope.halves = true;
}

void read_qwen3(const Fields& fields, ModelConfig& c) {
  fields.only_if_said("attention_bias", false);
  read_qwen(fields, c);
  c.head_norms = true;
  c.rope = read_rope(fields, {RopeType::kDefault, RopeType::kPlainYarn});
  c.rope.halves = true;
}

void read_deepseek_v2(const Fields& fields, ModelConfig& c) {
  read_latent_attention(fields, c);
  read_experts(fields, c);
  fields.only_if_said("scoring_func", "softmax");
  c.router = RouterKind::kSoftmax;
  const bool grouped = fields.one_of("topk_method", {"greedy", "group_limited_greedy"}) == 1;
  if (grouped) {
    read_groups(fields, c);
  } else {
    c.num_groups = 1;
    c.topk_groups = 1;
  }
  // As the family's own code has it: weights are normalised, or else scaled.
  c.normalise_topk = c.normalise_topk && c.experts_per_token > 1;
  if (c.normalise_topk) c.routed_scale = 1;
  check_top_k(c);
}

void read_deepseek_v3(const Fields& fields, ModelConfig& c) {
  read_latent_attention(fields, c);
  read_experts(fields, c);
  fields.only_if_said("scoring_func", "sigmoid");
  fields.only_if_said("topk_method", "noaux_tc");
  c.router = RouterKind::kSigmoidBias;
  read_groups(fields, c);
  need(c.num_experts / c.num_groups >= 2, "a group has fewer than the two experts that score it");
  check_top_k(c);
  c.mtp_layers = fields.integer_or("num_nextn_predict_layers", 0, 64, 0);
}

void read_deepseek_v32(const Fields& fields, ModelConfig& c) {
  read_deepseek_v3(fields, c);
  need(c.q_lora_rank > 0, "the indexer of deepseek_v32 needs q_lora_rank");
  // Relatives of the family share one selection between layers.
  for (const char* option : {"indexer_types", "index_topk_pattern", "index_topk_freq"}) {
    fields.refuse(option);
  }
  fields.only_if_said("indexer_rope_interleave", false);
  const IndexerConfig indexer{
      .heads = fields.integer("index_n_heads", 1, kernels::kMaxIndexHeads),
      .head_dim = fields.integer("index_head_dim", c.qk_rope_head_dim, kernels::kMaxIndexDim),
      .top_k = fields.integer("index_topk", 1)};
  need_multiple("index_head_dim", indexer.head_dim, 16);
  c.indexer = indexer;
}

struct Family {
  const char* model_type;
  const char* architecture;
  void (*read)(const Fields& fields, ModelConfig& config);
};
constexpr std::array kFamilies = {
    Family{"llama", "LlamaForCausalLM", read_llama},
    Family{"qwen2", "Qwen2ForCausalLM", read_qwen2},
    Family{"qwen3", "Qwen3ForCausalLM", read_qwen3},
    Family{"deepseek_v2", "DeepseekV2ForCausalLM", read_deepseek_v2},
    Family{"deepseek_v3", "DeepseekV3ForCausalLM", read_deepseek_v3},
    Family{"deepseek_v32", "DeepseekV32ForCausalLM", read_deepseek_v32}};

ModelConfig read_config(const Json& json) {
  if (!json.is_object()) throw Wrong{"not a JSON object"};
  const Fields fields(json, "");
  std::vector<std::string> types;
  types.reserve(kFamilies.size());
  for (const auto& known : kFamilies) types.emplace_back(known.model_type);
  const Family& family = kFamilies.at(fields.one_of("model_type", types));
  ModelConfig c;
  c.model_type = family.model_type;
  fields.only_if_said("architectures", Json::array({family.architecture}));
  if (fields.has("quantization_config")) {
    auto quantization = parse_quantization(fields.at("quantization_config"));
    if (!quantization) throw Wrong{quantization.error()};
    c.quantization = quantization->fp8;
    c.integers = quantization->integers;
  }
  fields.only("hidden_act", "silu");
  c.vocab_size = fields.integer("vocab_size", 1);
  c.hidden_size = fields.integer("hidden_size", 1);
  need_multiple("hidden_size", c.hidden_size, 16);
  c.num_layers = fields.integer("num_hidden_layers", 1, 1024);
  c.intermediate_size = fields.integer("intermediate_size", 1);
  c.rms_eps = fields.positive("rms_norm_eps");
  c.tied_embeddings = fields.boolean_or("tie_word_embeddings", false);
  c.max_positions = fields.integer("max_position_embeddings", 1);
  family.read(fields, c);
  c.bos_token = fields.integer_or("bos_token_id", 0, config_detail::kMaxDimension, -1);
  c.eos_tokens = read_eos(fields);
  return c;
}

}  // namespace

Result<ModelConfig> parse_model_config(std::string_view text, std::string_view name) {
  return config_detail::parse_fields(text, name, read_config);
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
  if (c.num_kv_heads % ranks != 0 && ranks % c.num_kv_heads != 0) {
    return fail(ErrorKind::kInvalid, "num_key_value_heads " + std::to_string(c.num_kv_heads) +
                                         " and tensor parallel size " + std::to_string(ranks) +
                                         " do not fit: one must be a multiple of the other");
  }
  return {};
}

Status check_data_parallel_attention(const ModelConfig& c) {
  if (c.attention == AttentionKind::kLatent) return {};
  return fail(ErrorKind::kInvalid,
              "it is for latent attention, whose KV cache all ranks would hold alike; " +
                  c.model_type + " has KV heads, which ranks divide between them");
}

Status check_expert_parallel(const ModelConfig& c, int ranks, bool deterministic) {
  if (c.num_experts == 0) {
    return fail(ErrorKind::kInvalid, "the model has no experts to share out");
  }
  if (deterministic) {
    return fail(ErrorKind::kInvalid,
                "experts on ranks of their own are added in another order than the deterministic "
                "mode's (--deterministic false)");
  }
  if (c.num_experts % ranks != 0) {
    return fail(ErrorKind::kInvalid, "n_routed_experts " + std::to_string(c.num_experts) +
                                         " does not divide by tensor parallel size " +
                                         std::to_string(ranks));
  }
  return {};
}

}  // namespace dsm::model
