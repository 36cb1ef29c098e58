#include "worker/server/json_fields.h"

#include <array>
#include <cmath>

#include "worker/server/json_slice.h"

namespace dsm::server {
namespace {

using nlohmann::json;

// Deep nesting costs stack in whoever walks the value, and a huge object costs time in whoever
// keeps its order: what is wrong with the body's shape, before anything is built.
std::optional<std::string> bad_shape(std::string_view body) {
  std::array<int, kMaxJsonDepth> members{};  // of the open object or array at each level
  int depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < body.size(); ++i) {
    const char c = body[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (depth == kMaxJsonDepth) {
        return "the body is nested deeper than " + std::to_string(kMaxJsonDepth) + " levels";
      }
      members.at(static_cast<std::size_t>(depth++)) = 0;
    } else if (c == ']' || c == '}') {
      if (depth > 0) --depth;
    } else if (c == ':' && depth > 0 &&
               ++members.at(static_cast<std::size_t>(depth - 1)) > kMaxJsonMembers) {
      return "the body holds an object with more than " + std::to_string(kMaxJsonMembers) +
             " fields";
    }
  }
  return std::nullopt;
}

std::string number_text(double value) {
  return json(value).dump();
}

}  // namespace

Parsed<json> parse_object(std::string_view body) {
  if (auto bad = bad_shape(body)) return bad_parameter("", std::move(*bad));
  if (body.starts_with("\xEF\xBB\xBF")) {
    return bad_parameter("", "the body begins with a byte order mark; send plain UTF-8");
  }
  try {
    json value = json::parse(body);
    if (!value.is_object()) return bad_parameter("", "the body must be a JSON object");
    return value;
  } catch (const json::exception& problem) {
    // The library's text names the place, but may quote the body around it: only the place is told.
    const auto* parse_error = dynamic_cast<const json::parse_error*>(&problem);
    const std::string where =
        parse_error != nullptr ? " (at byte " + std::to_string(parse_error->byte) + ")" : "";
    return bad_parameter("", "the body is not valid JSON" + where);
  }
}

std::string_view Fields::raw(const char* name) const {
  return member_text(text_, name);
}

void Fields::boolean(const char* name, bool& out) {
  if (const json* value = next(name)) {
    if (!value->is_boolean()) return wrong(name, "must be true or false");
    out = value->get<bool>();
  }
}

void Fields::number(const char* name, double low, double high, float& out) {
  if (const json* value = next(name)) {
    const double read = value->is_number() ? value->get<double>() : std::nan("");
    if (!(read >= low && read <= high)) {
      return wrong(name,
                   "must be a number between " + number_text(low) + " and " + number_text(high));
    }
    out = static_cast<float>(read);
  }
}

std::optional<std::int64_t> Fields::bounded(const char* name, std::int64_t low, std::int64_t high) {
  const json* value = next(name);
  if (value == nullptr) return std::nullopt;
  const auto read = whole(*value);
  if (read && *read >= low && *read <= high) return read;
  wrong(name,
        "must be a whole number between " + std::to_string(low) + " and " + std::to_string(high));
  return std::nullopt;
}

void Fields::string(const char* name, std::size_t max_bytes, std::string& out) {
  if (const json* value = next(name)) {
    if (!value->is_string() || value->get_ref<const std::string&>().size() > max_bytes) {
      return wrong(name, "must be a string of at most " + std::to_string(max_bytes) + " bytes");
    }
    out = value->get<std::string>();
  }
}

std::optional<Fields> Fields::object(const char* name) {
  const json* value = next(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_object()) {
    wrong(name, "must be an object");
    return std::nullopt;
  }
  return Fields(*value, raw(name), *error_, path(name) + ".");
}

std::vector<Fields> Fields::objects(const char* name, std::size_t max_count) {
  std::vector<Fields> found;
  const json* value = next(name);
  if (value == nullptr) return found;
  if (!value->is_array() || value->size() > max_count) {
    wrong(name, "must be an array of at most " + std::to_string(max_count) + " objects");
    return found;
  }
  const std::vector<std::string_view> texts = element_texts(raw(name));
  found.reserve(texts.size());
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const std::string at = std::string(name) + "[" + std::to_string(i) + "]";
    if (!(*value)[i].is_object()) {
      wrong(at, "must be an object");
      return {};
    }
    found.emplace_back((*value)[i], texts[i], *error_, path(at) + ".");
  }
  return found;
}

void Fields::wrong(const std::string& name, const std::string& what) {
  if (failed()) return;
  const std::string at = path(name);
  *error_ = bad_parameter(at, "'" + at + "' " + what).error();
}

std::string Fields::path(const std::string& name) const {
  if (!name.empty() || prefix_.empty()) return prefix_ + name;
  return prefix_.substr(0, prefix_.size() - 1);  // without the dot
}

std::optional<std::int64_t> Fields::whole(const json& value) {
  if (value.is_number_unsigned() &&
      value.get<std::uint64_t>() >
          static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
    return std::nullopt;
  }
  if (value.is_number_integer()) return value.get<std::int64_t>();
  return std::nullopt;
}

}  // namespace dsm::server
