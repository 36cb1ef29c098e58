#include "kube/parse.h"

namespace dsm::kube {

using nlohmann::json;

json parse_answer(std::string_view text) {
  const auto wanted = [](int, json::parse_event_t event, const json& parsed) {
    return event != json::parse_event_t::key ||
           parsed.get_ref<const std::string&>() != "managedFields";
  };
  return json::parse(text, wanted, /*allow_exceptions=*/false);
}

const json& member(const json& object, std::string_view key) {
  static const json kNothing;
  const auto found = object.find(key);
  return found == object.end() ? kNothing : *found;
}

std::string text_of(const json& object, std::string_view key) {
  const json& value = member(object, key);
  return value.is_string() ? value.get<std::string>() : std::string();
}

}  // namespace dsm::kube
