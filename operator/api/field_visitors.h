// The three visitors of a description of fields (spec_fields.h, tenant_fields.h): parsing, writing
// and listing. Private to operator/api.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "operator/api/spec_fields.h"

namespace dsm::api {

using nlohmann::json;

// Fills a struct from JSON. The first mistake is kept; after it nothing is read any more.
class Parser {
 public:
  explicit Parser(const json& root) : at_(&root), path_("spec") {
    if (!root.is_object()) mistake("", "is not an object");
  }

  dsm::Status finish() {
    check_unknown();
    if (error_) return std::unexpected(*error_);
    return {};
  }

  template <typename Body>
  void object(const char* name, Body body) {
    static const json kEmpty = json::object();
    const json* value = find(name);
    if (value != nullptr && !value->is_object()) return mistake(name, "must be an object");
    enter(value != nullptr ? *value : kEmpty, path_ + "." + name, body);
  }

  template <typename T, typename Body>
  void list(const char* name, std::vector<T>& values, std::size_t max, Body body) {
    const json* value = find(name);
    if (value == nullptr) return;
    if (!value->is_array()) return mistake(name, "must be a list");
    if (value->size() > max) {
      return mistake(name, "has " + std::to_string(value->size()) + " entries; use at most " +
                               std::to_string(max));
    }
    for (std::size_t i = 0; i < value->size() && !error_; ++i) {
      const std::string item = path_ + "." + name + "[" + std::to_string(i) + "]";
      if (!(*value)[i].is_object()) return mistake_at(item, "must be an object");
      T parsed;
      enter((*value)[i], item, [&] { body(parsed); });
      values.push_back(std::move(parsed));
    }
  }

  void text(const char* name, std::string& out, TextRule rule) {
    const json* value = find(name);
    if (value != nullptr && !value->is_string()) return mistake(name, "must be a text");
    if (value != nullptr) out = value->get<std::string>();
    if (out.empty()) {
      if (rule.required) mistake(name, "is missing; it is required");
      return;
    }
    if (out.size() > rule.max_length) {
      return mistake(name, "has " + std::to_string(out.size()) + " characters; use at most " +
                               std::to_string(rule.max_length));
    }
    if (rule.check == nullptr) return;
    if (auto ok = rule.check(out); !ok) mistake(name, ok.error().message);
  }

  // A list of plain texts; `required`: at least one.
  void texts(const char* name, std::vector<std::string>& out, std::size_t max, TextRule rule) {
    const json* value = find(name);
    if (value != nullptr && !value->is_array()) return mistake(name, "must be a list of texts");
    if (value == nullptr || value->empty()) {
      if (rule.required) mistake(name, "is empty; it needs at least one entry");
      return;
    }
    if (value->size() > max) {
      return mistake(name, "has " + std::to_string(value->size()) + " entries; use at most " +
                               std::to_string(max));
    }
    for (std::size_t i = 0; i < value->size(); ++i) {
      const json& entry = (*value)[i];
      const std::string at = path_ + "." + name + "[" + std::to_string(i) + "]";
      const std::string text = entry.is_string() ? entry.get<std::string>() : std::string();
      if (text.empty()) return mistake_at(at, "must be a text that is not empty");
      if (text.size() > rule.max_length) {
        return mistake_at(at, "is longer than " + std::to_string(rule.max_length) + " characters");
      }
      if (rule.check != nullptr) {
        if (auto ok = rule.check(text); !ok) return mistake_at(at, ok.error().message);
      }
      out.push_back(text);
    }
  }

  template <typename Int>
  void number(const char* name, Int& out, long min, long max) {
    const json* value = find(name);
    if (value == nullptr) return;
    if (!value->is_number_integer()) return mistake(name, "must be a whole number");
    const auto number = value->get<long>();
    if (number < min || number > max) {
      return mistake(name, "is " + value->dump() + "; use " + std::to_string(min) + " to " +
                               std::to_string(max));
    }
    out = static_cast<int>(number);
  }

  template <typename Bool>
  void truth(const char* name, Bool& out) {
    const json* value = find(name);
    if (value == nullptr) return;
    if (!value->is_boolean()) return mistake(name, "must be true or false");
    out = value->get<bool>();
  }

  void map(const char* name, StringMap& out, MapRule rule) {
    const json* value = find(name);
    if (value == nullptr) return;
    if (!value->is_object()) return mistake(name, "must be a map of texts");
    if (value->size() > rule.max_entries) {
      return mistake(name, "has " + std::to_string(value->size()) + " entries; use at most " +
                               std::to_string(rule.max_entries));
    }
    for (const auto& [key, entry] : value->items()) {
      const std::string at = path_ + "." + name + "[" + key + "]";
      std::string text;
      if (entry.is_string()) {
        text = entry.get<std::string>();
      } else if (rule.numbers_too && entry.is_number_integer()) {
        text = entry.dump();
      } else {
        return mistake_at(at, "must be a text");
      }
      if (auto ok = rule.check_key(key); !ok) {
        return mistake_at(path_ + "." + name, "a key " + ok.error().message);
      }
      if (text.size() > rule.max_length) {
        return mistake_at(at, "is longer than " + std::to_string(rule.max_length) + " characters");
      }
      if (auto ok = rule.check_value(text); !ok) return mistake_at(at, ok.error().message);
      out.emplace(key, std::move(text));
    }
  }

 private:
  // null is the same as absent: the API server treats it so where a default is known.
  const json* find(const char* name) {
    known_.insert(name);
    if (error_) return nullptr;
    const auto it = at_->find(name);
    return it == at_->end() || it->is_null() ? nullptr : &*it;
  }

  template <typename Body>
  void enter(const json& value, std::string path, Body body) {
    if (error_) return;
    const json* outer = std::exchange(at_, &value);
    std::string outer_path = std::exchange(path_, std::move(path));
    std::set<std::string> outer_known = std::exchange(known_, {});
    body();
    check_unknown();
    at_ = outer;
    path_ = std::move(outer_path);
    known_ = std::move(outer_known);
  }

  void check_unknown() {
    if (error_) return;
    for (const auto& [key, value] : at_->items()) {
      if (!known_.contains(key)) return mistake(key, "is not a field of this version; remove it");
    }
  }

  void mistake(const std::string& name, const std::string& what) {
    mistake_at(name.empty() ? path_ : path_ + "." + name, what);
  }
  void mistake_at(const std::string& path, const std::string& what) {
    if (!error_) error_ = Error{ErrorKind::kInvalid, path + ": " + what};
  }

  const json* at_;
  std::string path_;
  std::set<std::string> known_;
  std::optional<Error> error_;
};

// Takes out of `value` what `defaults` says too.
inline void leave_out_defaults(json& value, const json& defaults) {
  for (auto it = value.begin(); it != value.end();) {
    const auto same = defaults.find(it.key());
    if (same != defaults.end() && it->is_object() && same->is_object()) {
      leave_out_defaults(*it, *same);
      it = it->empty() ? value.erase(it) : std::next(it);
    } else {
      it = same != defaults.end() && *it == *same ? value.erase(it) : std::next(it);
    }
  }
}

// Writes every field, defaults too.
class Writer {
 public:
  json take() { return std::move(at_); }

  template <typename Body>
  void object(const char* name, Body body) {
    at_[name] = inside(body);
  }
  template <typename T, typename Body>
  void list(const char* name, std::vector<T>& values, std::size_t, Body body) {
    T blank;
    const json defaults = inside([&] { body(blank); });
    json items = json::array();
    for (T& value : values) {
      json item = inside([&] { body(value); });
      leave_out_defaults(item, defaults);
      items.push_back(std::move(item));
    }
    at_[name] = std::move(items);
  }
  void text(const char* name, std::string& value, TextRule) { at_[name] = value; }
  void texts(const char* name, std::vector<std::string>& values, std::size_t, TextRule) {
    at_[name] = values;
  }
  template <typename Int>
  void number(const char* name, Int& value, long, long) {
    at_[name] = value;
  }
  template <typename Int>
  void number(const char* name, std::optional<Int>& value, long, long) {
    if (value) at_[name] = *value;
  }
  void truth(const char* name, bool& value) { at_[name] = value; }
  void truth(const char* name, std::optional<bool>& value) {
    if (value) at_[name] = *value;
  }
  void map(const char* name, StringMap& values, MapRule) { at_[name] = values; }

 private:
  template <typename Body>
  json inside(Body body) {
    json outer = std::exchange(at_, json::object());
    body();
    return std::exchange(at_, std::move(outer));
  }

  json at_ = json::object();
};

// Lists the fields of a default struct.
class Lister {
 public:
  std::vector<Field> take() { return std::move(fields_); }

  template <typename Body>
  void object(const char* name, Body body) {
    below(prefix_ + name + ".", body);
  }
  template <typename T, typename Body>
  void list(const char* name, std::vector<T>&, std::size_t, Body body) {
    T blank;
    below(prefix_ + name + "[].", [&] { body(blank); });
  }
  void text(const char* name, std::string& value, TextRule rule) {
    fields_.push_back({prefix_ + name,
                       "string",
                       value.empty() ? json() : json(value),
                       {},
                       static_cast<long>(rule.max_length)});
  }
  void texts(const char* name, std::vector<std::string>&, std::size_t, TextRule rule) {
    fields_.push_back(
        {prefix_ + name + "[]", "string", nullptr, {}, static_cast<long>(rule.max_length)});
  }
  template <typename Int>
  void number(const char* name, Int& value, long min, long max) {
    fields_.push_back({prefix_ + name, "integer", value, min, max});
  }
  template <typename Int>
  void number(const char* name, std::optional<Int>&, long min, long max) {
    fields_.push_back({prefix_ + name, "integer", nullptr, min, max});
  }
  void truth(const char* name, bool& value) {
    fields_.push_back({prefix_ + name, "boolean", value, {}, {}});
  }
  void truth(const char* name, std::optional<bool>&) {
    fields_.push_back({prefix_ + name, "boolean", nullptr, {}, {}});
  }
  void map(const char* name, StringMap&, MapRule rule) {
    fields_.push_back(
        {prefix_ + name + "{}", "string", nullptr, {}, static_cast<long>(rule.max_length)});
  }

 private:
  template <typename Body>
  void below(std::string prefix, Body body) {
    std::string outer = std::exchange(prefix_, std::move(prefix));
    body();
    prefix_ = std::move(outer);
  }

  std::string prefix_;
  std::vector<Field> fields_;
};

}  // namespace dsm::api
