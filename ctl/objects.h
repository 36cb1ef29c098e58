// Looking into JSON objects of the cluster, which may have any shape. Pure.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace dsm::ctl {

// What is at a JSON pointer ("/metadata/name"); null when it is not there.
const nlohmann::json& part(const nlohmann::json& object, const std::string& pointer);
// The text there; empty when there is none.
std::string text_at(const nlohmann::json& object, const std::string& pointer);

// The value of a label; empty when there is none.
std::string label(const nlohmann::json& object, std::string_view key);

inline std::string name_of(const nlohmann::json& object) {
  return text_at(object, "/metadata/name");
}
inline std::string namespace_of(const nlohmann::json& object) {
  return text_at(object, "/metadata/namespace");
}
inline std::string uid_of(const nlohmann::json& object) {
  return text_at(object, "/metadata/uid");
}

}  // namespace dsm::ctl
