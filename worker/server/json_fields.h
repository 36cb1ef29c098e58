// Reads the fields of a client's JSON into native values with bounds, and says in one sentence,
// with the field's path, what is wrong with the first that is not right. For this folder's parsers;
// not thread-safe.
#pragma once

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "worker/server/api_error.h"

namespace dsm::server {

// What a body may look like at all; found before anything is built of it.
inline constexpr int kMaxJsonDepth = 64;
inline constexpr int kMaxJsonMembers = 1024;  // of one object

// 400 when the body is not a JSON object within these bounds. The message never quotes the body.
Parsed<nlohmann::json> parse_object(std::string_view body);

// The fields of one object. An absent or null field leaves the value as it is. The first error
// stays; everything after it does nothing.
class Fields {
 public:
  using Json = nlohmann::json;

  // All of them outlive this. `text` is what `object` was parsed from. `error` is shared by the
  // Fields of a whole body; `prefix` is the object's path, with the dot behind it.
  Fields(const Json& object, std::string_view text, std::optional<ApiError>& error,
         std::string prefix = "")
      : object_(&object), text_(text), error_(&error), prefix_(std::move(prefix)) {}

  // Null when the field is absent or null.
  const Json* find(const char* name) const {
    const auto found = object_->find(name);
    return found == object_->end() || found->is_null() ? nullptr : &*found;
  }
  // The field's text as the client wrote it; empty when it is absent.
  std::string_view raw(const char* name) const;

  void boolean(const char* name, bool& out);
  void number(const char* name, double low, double high, float& out);
  template <typename Int>
  void integer(const char* name, std::int64_t low, std::int64_t high, Int& out) {
    if (const auto read = bounded(name, low, high)) {
      out = static_cast<typename Unwrap<Int>::Type>(*read);
    }
  }
  void string(const char* name, std::size_t max_bytes, std::string& out);
  // The fields of an object in this one; nullopt when it is absent or something else.
  std::optional<Fields> object(const char* name);
  // The fields of each object of an array; nothing when it is absent. An array that is longer, or
  // that holds anything but objects, is wrong.
  std::vector<Fields> objects(const char* name, std::size_t max_count);

  // "" stands for the object itself.
  void wrong(const std::string& name, const std::string& what);
  bool failed() const { return error_->has_value(); }
  std::string path(const std::string& name) const;

  // A whole number in 64 bits.
  static std::optional<std::int64_t> whole(const Json& value);

 private:
  template <typename T>
  struct Unwrap {
    using Type = T;
  };
  template <typename T>
  struct Unwrap<std::optional<T>> {
    using Type = T;
  };
  const Json* next(const char* name) const { return failed() ? nullptr : find(name); }
  std::optional<std::int64_t> bounded(const char* name, std::int64_t low, std::int64_t high);

  const Json* object_;
  std::string_view text_;
  std::optional<ApiError>* error_;
  std::string prefix_;
};

}  // namespace dsm::server
