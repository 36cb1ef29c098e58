// JSON as Python's json.dumps(value, ensure_ascii=False) writes it: ", " and ": " between things,
// keys in their order. The templates were made with it, so prompts have to be as well. Private to
// this room. Values only.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace dsm::text {

// Nothing for text that is not JSON, or nested deeper than any schema is (a client wrote it).
std::optional<nlohmann::ordered_json> parse_json(std::string_view text);
std::string python_json(const nlohmann::ordered_json& value);

}  // namespace dsm::text
