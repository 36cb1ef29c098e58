// Reads fields of objects as the API server gave them; nothing about their types is sure.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace dsm::plan {

// The value at a JSON pointer (RFC 6901) such as "/metadata/name"; null where there is none.
inline nlohmann::json part(const nlohmann::json& object, const char* pointer) {
  return object.is_object() ? object.value(nlohmann::json::json_pointer(pointer), nlohmann::json())
                            : nlohmann::json();
}

// "" for anything but a string.
inline std::string text(const nlohmann::json& value) {
  return value.is_string() ? value.get<std::string>() : std::string();
}

}  // namespace dsm::plan
