// adapter_config.json of a LoRA adapter as PEFT writes it. Only what the graph adds is accepted: an
// option that would change the numbers otherwise is refused by its name, also one that is newer
// than this program, unless its value asks for nothing (null, false, empty).
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace dsm::model {

struct AdapterConfig {
  int rank = 0;                      // r
  double scale = 0;                  // lora_alpha / r, with use_rslora lora_alpha / sqrt(r)
  std::vector<std::string> targets;  // target_modules when it is a list; else empty
};

inline constexpr int kMaxAdapterRank = 512;

// `name` stands for the file in messages. kInvalid: the message names the file and the field.
Result<AdapterConfig> parse_adapter_config(std::string_view json, std::string_view name);
// adapter_config.json of a folder; kNotFound when there is none.
Result<AdapterConfig> load_adapter_config(const std::filesystem::path& dir);

}  // namespace dsm::model
