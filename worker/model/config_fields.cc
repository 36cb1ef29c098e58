#include "worker/model/config_fields.h"

#include <algorithm>

namespace dsm::model::config_detail {

bool Fields::has(const char* key) const {
  return object_.contains(key) && !object_.at(key).is_null();
}

const Json& Fields::at(const char* key) const {
  if (!has(key)) throw Wrong{"field " + prefix_ + key + " is missing"};
  return object_.at(key);
}

int Fields::integer(const char* key, std::int64_t low, std::int64_t high) const {
  const Json& value = at(key);
  if (!value.is_number_integer()) throw Wrong{"field " + prefix_ + key + " is not an integer"};
  const auto number = value.get<std::int64_t>();
  if (number < low || number > high) {
    throw Wrong{"field " + prefix_ + key + " is " + std::to_string(number) + ", outside " +
                std::to_string(low) + ".." + std::to_string(high)};
  }
  return static_cast<int>(number);
}

int Fields::integer_or(const char* key, std::int64_t low, std::int64_t high, int absent) const {
  return has(key) ? integer(key, low, high) : absent;
}

double Fields::positive(const char* key) const {
  const Json& value = at(key);
  if (!value.is_number() || !(value.get<double>() > 0) || !(value.get<double>() < 1e12)) {
    throw Wrong{"field " + prefix_ + key + " is not a positive number"};
  }
  return value.get<double>();
}

bool Fields::boolean(const char* key) const {
  const Json& value = at(key);
  if (!value.is_boolean()) throw Wrong{"field " + prefix_ + key + " is not true or false"};
  return value.get<bool>();
}

bool Fields::boolean_or(const char* key, bool absent) const {
  return has(key) ? boolean(key) : absent;
}

std::size_t Fields::one_of(const char* key, const std::vector<std::string>& known) const {
  const Json& value = at(key);
  const auto found = std::find_if(known.begin(), known.end(),
                                  [&](const std::string& name) { return value == name; });
  if (found != known.end()) return static_cast<std::size_t>(found - known.begin());
  std::string list;
  for (const auto& name : known) list += (list.empty() ? "" : ", ") + name;
  throw Wrong{"option " + prefix_ + key + " = " + value.dump() + " is not supported, only " + list};
}

void Fields::only(const char* key, const Json& wanted) const {
  const Json& value = at(key);
  if (value != wanted) {
    throw Wrong{"option " + prefix_ + key + " = " + value.dump() + " is not supported, only " +
                wanted.dump()};
  }
}

void Fields::only_if_said(const char* key, const Json& wanted) const {
  if (has(key)) only(key, wanted);
}

void Fields::refuse(const char* key) const {
  if (has(key)) throw Wrong{"option " + prefix_ + key + " is not supported"};
}

void need(bool ok, const std::string& message) {
  if (!ok) throw Wrong{message};
}

void need_multiple(const char* name, int value, int unit) {
  need(value % unit == 0, std::string(name) + " " + std::to_string(value) +
                              " is not a multiple of " + std::to_string(unit));
}

}  // namespace dsm::model::config_detail
