// The rotary part of config.json. Internal to the parsers of config.json.
#pragma once

#include <vector>

#include "worker/model/config.h"
#include "worker/model/config_fields.h"

namespace dsm::model::config_detail {

// kYarn is DeepSeek's, whose temperatures are always said; kPlainYarn has those of YaRN's paper
// where nothing else is said.
enum class RopeType { kDefault, kLinear, kLlama3, kYarn, kPlainYarn };

// Reads rope_theta and rope_scaling, or rope_parameters as newer checkpoints write both in one.
// A type that is not in `types` is refused by name.
RopeConfig read_rope(const Fields& fields, const std::vector<RopeType>& types);

}  // namespace dsm::model::config_detail
