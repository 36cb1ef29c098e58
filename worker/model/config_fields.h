// Reading the fields of a JSON object one by one, each with its bounds. Internal to the parsers of
// config.json and adapter_config.json: what is wrong is thrown as a sentence that names the field
// and becomes an Error in parse_fields().
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace dsm::model::config_detail {

using Json = nlohmann::json;

// The first thing that was wrong.
struct Wrong {
  std::string message;
};

inline constexpr std::int64_t kMaxDimension = 1 << 24;

// null counts as absent everywhere: checkpoints write it for options that are not used.
class Fields {
 public:
  // `prefix` stands before names in messages, as in "rope_scaling.".
  Fields(const Json& object, std::string prefix) : object_(object), prefix_(std::move(prefix)) {}

  bool has(const char* key) const;
  // As messages name it.
  std::string name_of(const char* key) const { return prefix_ + key; }
  const Json& at(const char* key) const;
  int integer(const char* key, std::int64_t low, std::int64_t high = kMaxDimension) const;
  int integer_or(const char* key, std::int64_t low, std::int64_t high, int absent) const;
  double positive(const char* key) const;
  bool boolean(const char* key) const;
  bool boolean_or(const char* key, bool absent) const;
  // One of `known`, by its place in the list; anything else is refused by name.
  std::size_t one_of(const char* key, const std::vector<std::string>& known) const;

  // Refuses any value but the one that is built in the graph.
  void only(const char* key, const Json& wanted) const;
  void only_if_said(const char* key, const Json& wanted) const;
  void refuse(const char* key) const;

 private:
  const Json& object_;
  std::string prefix_;
};

// What `read` makes of the JSON object in `text`; kInvalid, with `name` before the sentence.
template <typename T>
Result<T> parse_fields(std::string_view text, std::string_view name, T (*read)(const Json&)) {
  try {
    return read(Json::parse(text));
  } catch (const Wrong& wrong) {
    return fail(ErrorKind::kInvalid, std::string(name) + ": " + wrong.message);
  } catch (const Json::exception& error) {
    return fail(ErrorKind::kInvalid, std::string(name) + ": " + error.what());
  }
}

void need(bool ok, const std::string& message);
void need_multiple(const char* name, int value, int unit);

}  // namespace dsm::model::config_detail
