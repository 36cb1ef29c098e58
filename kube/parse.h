// Reads JSON that the API server sends.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace dsm::kube {

// The value without any "managedFields", which say who wrote which field and are half of an object:
// nothing here reads them, so they never take memory. Discarded (is_discarded()) when the text is
// not JSON.
nlohmann::json parse_answer(std::string_view text);

// A member of an object, without a copy of it; null where there is none.
const nlohmann::json& member(const nlohmann::json& object, std::string_view key);
// The same as text; "" for anything but a string.
std::string text_of(const nlohmann::json& object, std::string_view key);

}  // namespace dsm::kube
