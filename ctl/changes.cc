#include "ctl/changes.h"

#include "ctl/text.h"

namespace dsm::ctl {

using nlohmann::json;

namespace {

constexpr std::size_t kLongestValue = 80;

std::string value_text(const json& value) {
  if (value.is_null()) return "(not set)";
  std::string text = value.dump(-1, ' ', false, json::error_handler_t::replace);
  if (text.size() <= kLongestValue) return text;
  std::size_t end = kLongestValue;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U) --end;
  return text.substr(0, end) + "...";
}

}  // namespace

json merge_diff(const json& from, const json& to) {
  json patch = json::object();
  for (const auto& [key, value] : from.items()) {
    if (!to.contains(key)) patch[key] = nullptr;
  }
  for (const auto& [key, value] : to.items()) {
    const auto before = from.find(key);
    if (before != from.end() && *before == value) continue;
    const bool inside = before != from.end() && before->is_object() && value.is_object();
    patch[key] = inside ? merge_diff(*before, value) : value;
  }
  return patch;
}

std::vector<Change> changes(const json& from, const json& to, const std::string& path) {
  if (from == to) return {};
  // An object that is not there is one without fields.
  const auto has_fields = [](const json& value) { return value.is_object() || value.is_null(); };
  if (!has_fields(from) || !has_fields(to)) return {{path, from, to}};
  const json before = from.is_null() ? json::object() : from;
  const json after = to.is_null() ? json::object() : to;
  json keys = before;
  keys.update(after);  // sorted, each once
  std::vector<Change> out;
  for (const auto& [key, unused] : keys.items()) {
    const auto inside =
        changes(before.value(key, json()), after.value(key, json()), path + "." + key);
    out.insert(out.end(), inside.begin(), inside.end());
  }
  return out;
}

std::string to_text(const Change& change) {
  return printable(change.path) + ": " + value_text(change.before) + " -> " +
         value_text(change.after);
}

}  // namespace dsm::ctl
