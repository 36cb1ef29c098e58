#include "worker/model/adapter_config.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>

#include "worker/model/config_fields.h"

namespace dsm::model {
namespace {

using config_detail::Fields;
using config_detail::Json;
using config_detail::Wrong;

constexpr std::uintmax_t kMaxBytes = 1 << 20;

// What says where an adapter comes from or how it was trained, and changes nothing afterwards; and
// what is read below.
constexpr std::string_view kHarmless[] = {"auto_mapping",
                                          "base_model_name_or_path",
                                          "bias",
                                          "eva_config",
                                          "exclude_modules",
                                          "inference_mode",
                                          "init_lora_weights",
                                          "layers_pattern",
                                          "layers_to_transform",
                                          "lora_alpha",
                                          "lora_dropout",
                                          "megatron_core",
                                          "peft_type",
                                          "peft_version",
                                          "qalora_group_size",
                                          "r",
                                          "revision",
                                          "target_modules",
                                          "task_type",
                                          "use_rslora"};

bool asks_for_nothing(const Json& value) {
  return value.is_null() || value == false || (value.is_structured() && value.empty()) ||
         (value.is_string() && value.get_ref<const std::string&>().empty());
}

// Some ways to begin change the base model's weights, too: then the two files are not all of it.
void check_beginning(const Fields& fields) {
  if (!fields.has("init_lora_weights") || fields.at("init_lora_weights").is_boolean()) return;
  fields.one_of("init_lora_weights", {"gaussian", "orthogonal", "eva"});
}

std::vector<std::string> read_targets(const Fields& fields) {
  const Json& value = fields.at("target_modules");
  if (value.is_string()) return {};  // an expression: the tensors say what it hit
  if (!value.is_array() || value.empty() ||
      !std::ranges::all_of(value, [](const Json& one) { return one.is_string(); })) {
    throw Wrong{"field target_modules is neither a text nor a list of names"};
  }
  return value.get<std::vector<std::string>>();
}

AdapterConfig read_config(const Json& json) {
  if (!json.is_object()) throw Wrong{"not a JSON object"};
  const Fields fields(json, "");
  fields.only("peft_type", "LORA");
  fields.only_if_said("bias", "none");
  for (const auto& [key, value] : json.items()) {
    if (std::ranges::find(kHarmless, key) != std::end(kHarmless) || asks_for_nothing(value)) {
      continue;
    }
    throw Wrong{"option " + key.substr(0, 64) + " is not supported"};
  }
  check_beginning(fields);
  AdapterConfig config;
  config.rank = fields.integer("r", 1, kMaxAdapterRank);
  config.targets = read_targets(fields);
  const double rank = config.rank;
  config.scale = fields.positive("lora_alpha") /
                 (fields.boolean_or("use_rslora", false) ? std::sqrt(rank) : rank);
  return config;
}

}  // namespace

Result<AdapterConfig> parse_adapter_config(std::string_view text, std::string_view name) {
  return config_detail::parse_fields(text, name, read_config);
}

Result<AdapterConfig> load_adapter_config(const std::filesystem::path& dir) {
  const auto path = dir / "adapter_config.json";
  std::error_code ignored;
  const auto size = std::filesystem::file_size(path, ignored);
  std::ifstream file(path, std::ios::binary);
  if (ignored || !file) return fail(ErrorKind::kNotFound, path.string() + ": cannot be opened");
  if (size > kMaxBytes) {
    return fail(ErrorKind::kInvalid,
                path.string() + ": has more than " + std::to_string(kMaxBytes) + " bytes");
  }
  std::ostringstream text;
  text << file.rdbuf();
  return parse_adapter_config(text.str(), path.string());
}

}  // namespace dsm::model
