#include "worker/model/config_rope.h"

#include <array>

namespace dsm::model::config_detail {
namespace {

constexpr std::array kNames = {"default", "linear", "llama3", "yarn", "yarn"};  // by RopeType

YarnConfig read_yarn(const Fields& fields, const std::string& prefix) {
  fields.refuse("attention_factor");
  fields.only_if_said("truncate", true);
  YarnConfig yarn;
  yarn.factor = fields.positive("factor");
  yarn.beta_fast = fields.positive("beta_fast");
  yarn.beta_slow = fields.positive("beta_slow");
  yarn.mscale = fields.positive("mscale");
  yarn.mscale_all_dim = fields.positive("mscale_all_dim");
  yarn.original_max_position = fields.integer("original_max_position_embeddings", 1);
  need(yarn.factor >= 1, "field " + prefix + "factor is below 1");
  return yarn;
}

// attention_factor replaces the paper's temperature of sines and cosines, 0.1 ln(factor) + 1.
// attn_factor multiplies it, as vLLM has it: R1-0528-Qwen3-8B says what makes it 1. (transformers
// does not read that one.)
YarnConfig read_plain_yarn(const Fields& fields, const std::string& prefix) {
  fields.only_if_said("truncate", true);
  fields.refuse("mscale");
  fields.refuse("mscale_all_dim");
  const auto positive_or = [&](const char* key, double otherwise) {
    return fields.has(key) ? fields.positive(key) : otherwise;
  };
  YarnConfig yarn;
  yarn.factor = fields.positive("factor");
  yarn.beta_fast = positive_or("beta_fast", 32);
  yarn.beta_slow = positive_or("beta_slow", 1);
  yarn.mscale = fields.has("attention_factor") ? 0 : 1;
  yarn.attention_factor = positive_or("attention_factor", 1) * positive_or("attn_factor", 1);
  yarn.original_max_position = fields.integer("original_max_position_embeddings", 1);
  need(yarn.factor >= 1, "field " + prefix + "factor is below 1");
  return yarn;
}

Llama3RopeConfig read_llama3(const Fields& fields, const std::string& prefix) {
  Llama3RopeConfig rope;
  rope.factor = fields.positive("factor");
  rope.low_freq_factor = fields.positive("low_freq_factor");
  rope.high_freq_factor = fields.positive("high_freq_factor");
  rope.original_max_position = fields.integer("original_max_position_embeddings", 1);
  need(rope.factor >= 1, "field " + prefix + "factor is below 1");
  need(rope.high_freq_factor > rope.low_freq_factor,
       "field " + prefix + "high_freq_factor is not above low_freq_factor");
  return rope;
}

}  // namespace

RopeConfig read_rope(const Fields& fields, const std::vector<RopeType>& types) {
  const bool together = fields.has("rope_parameters");
  if (together && fields.has("rope_scaling")) {
    throw Wrong{"both rope_parameters and rope_scaling are given; leave one of them"};
  }
  RopeConfig rope;
  const char* key = together ? "rope_parameters" : "rope_scaling";
  if (!together) {
    rope.theta = fields.positive("rope_theta");
    if (!fields.has(key)) return rope;
  }
  const Json& json = fields.at(key);
  if (!json.is_object()) throw Wrong{std::string("field ") + key + " is not an object"};
  const std::string prefix = std::string(key) + ".";
  const Fields inner(json, prefix);
  if (together) {
    rope.theta = inner.positive("rope_theta");
    inner.only_if_said("partial_rotary_factor", 1.0);
  }
  std::vector<std::string> names;
  names.reserve(types.size());
  for (const auto type : types) names.emplace_back(kNames.at(static_cast<std::size_t>(type)));
  switch (types.at(inner.one_of(inner.has("rope_type") ? "rope_type" : "type", names))) {
    case RopeType::kDefault:
      break;
    case RopeType::kLinear:
      rope.linear_factor = inner.positive("factor");
      break;
    case RopeType::kLlama3:
      rope.llama3 = read_llama3(inner, prefix);
      break;
    case RopeType::kYarn:
      rope.yarn = read_yarn(inner, prefix);
      break;
    case RopeType::kPlainYarn:
      rope.yarn = read_plain_yarn(inner, prefix);
      break;
  }
  return rope;
}

}  // namespace dsm::model::config_detail
