#include "worker/text/python_json.h"

namespace dsm::text {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kMaxDepth = 64;

void write(const Json& value, std::string& out) {
  const char* separator = "";
  if (value.is_object()) {
    out += '{';
    for (const auto& [key, member] : value.items()) {
      out += separator + Json(key).dump() + ": ";
      write(member, out);
      separator = ", ";
    }
    out += '}';
  } else if (value.is_array()) {
    out += '[';
    for (const Json& item : value) {
      out += separator;
      write(item, out);
      separator = ", ";
    }
    out += ']';
  } else {
    out += value.dump();
  }
}

}  // namespace

std::optional<Json> parse_json(std::string_view text) {
  bool too_deep = false;
  // Deep parts are dropped while they are read, so nothing here recurses far.
  auto shallow = [&](int depth, Json::parse_event_t /*event*/, Json& /*value*/) {
    if (depth > kMaxDepth) too_deep = true;
    return depth <= kMaxDepth;
  };
  Json value = Json::parse(text, shallow, /*allow_exceptions=*/false);
  if (too_deep || value.is_discarded()) return std::nullopt;
  return value;
}

std::string python_json(const Json& value) {
  std::string out;
  write(value, out);
  return out;
}

}  // namespace dsm::text
