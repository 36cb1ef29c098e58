// The default model's config.json, for tests that change it, and what the parser says of one.
#pragma once

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "worker/model/config.h"

namespace dsm::model {

inline nlohmann::json tiny() {
  std::ifstream file("models/deepseek-tiny/config.json");
  return nlohmann::json::parse(file);
}

// "accepted", or why not.
inline std::string message_of(const nlohmann::json& json) {
  const auto config = parse_model_config(json.dump(), "config.json");
  return config ? "accepted" : config.error().message;
}

}  // namespace dsm::model
