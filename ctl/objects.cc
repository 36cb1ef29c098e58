#include "ctl/objects.h"

namespace dsm::ctl {

using nlohmann::json;

const json& part(const json& object, const std::string& pointer) {
  static const json kNull;
  const json::json_pointer at(pointer);
  return object.contains(at) ? object.at(at) : kNull;
}

std::string text_at(const json& object, const std::string& pointer) {
  const json& value = part(object, pointer);
  return value.is_string() ? value.get<std::string>() : std::string();
}

std::string label(const json& object, std::string_view key) {
  const json& labels = part(object, "/metadata/labels");
  const auto found = labels.is_object() ? labels.find(key) : labels.end();
  return found != labels.end() && found->is_string() ? found->get<std::string>() : std::string();
}

}  // namespace dsm::ctl
