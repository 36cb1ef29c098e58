#include "operator/faults/managed_fields.h"

#include <algorithm>
#include <utility>

namespace dsm::faults {
namespace {

// A list whose entries are told apart by number and protocol; other lists, and selectors, are
// taken whole.
const std::string kPorts = "/spec/ports";
constexpr const char* kAtomic = "/selector";

// Path -> value of each field that can have an owner.
using Fields = std::map<std::string, Json>;

std::string port_path(const Json& port) {
  return kPorts + "/" + std::to_string(port.value("port", 0)) + port.value("protocol", "TCP");
}

std::string escaped(const std::string& key) {
  return (Json::json_pointer() / key).to_string();
}

void collect(const Json& value, const std::string& path, Fields& fields) {
  if (path == kPorts && value.is_array()) {
    for (const Json& port : value) fields[port_path(port)] = port;
  } else if (value.is_object() && !value.empty() && !path.ends_with(kAtomic)) {
    for (const auto& [key, inner] : value.items()) collect(inner, path + escaped(key), fields);
  } else {
    fields[path] = value;
  }
}

Fields fields_of(const Json& object) {
  Json own = object;
  for (const char* const field : {"apiVersion", "kind", "status"}) own.erase(field);
  if (own.contains("metadata")) {
    for (const char* const field : {"name", "namespace", "uid", "resourceVersion", "generation",
                                    "creationTimestamp", "deletionTimestamp"}) {
      own["metadata"].erase(field);
    }
    if (own["metadata"].empty()) own.erase("metadata");
  }
  Fields fields;
  for (const auto& [key, value] : own.items()) collect(value, escaped(key), fields);
  return fields;
}

Json::json_pointer pointer(const std::string& path) {
  return Json::json_pointer(path);
}

bool is_port(const std::string& path) {
  return path.starts_with(kPorts + "/");
}

void put(Json& object, const std::string& path, const Json& value) {
  if (!is_port(path)) {
    Json& there = object[pointer(path)];
    // An empty object says only that there is one.
    if (!(there.is_object() && value.is_object() && value.empty())) there = value;
    return;
  }
  Json& ports = object["spec"]["ports"];
  const auto same = std::ranges::find(ports, path, port_path);
  if (same == ports.end()) {
    ports.push_back(value);
  } else {
    *same = value;
  }
}

void take(Json& object, const std::string& path) {
  if (is_port(path)) {
    Json& ports = object["spec"]["ports"];
    const auto port = std::ranges::find(ports, path, port_path);
    if (port != ports.end()) ports.erase(port);
    return;
  }
  // With what is empty after it.
  for (Json::json_pointer at = pointer(path); !at.empty(); at = at.parent_pointer()) {
    Json& parent = object[at.parent_pointer()];
    parent.erase(at.back());
    if (!parent.empty()) return;
  }
}

}  // namespace

Json ManagedFields::apply(const Json& there, const Json& wanted, const std::string& manager) {
  const std::string owner = manager + " Apply";
  const Fields before = fields_of(there);
  const Fields said = fields_of(wanted);
  const std::set<std::string> mine = std::exchange(fields_[owner], {});
  Json object = there;
  for (const std::string& path : mine) {
    const auto has_it = [&](const auto& other) { return other.second.contains(path); };
    if (!said.contains(path) && std::ranges::none_of(fields_, has_it)) take(object, path);
  }
  for (const auto& [path, value] : said) {
    const auto old = before.find(path);
    if (old == before.end() || old->second != value) forget(path);
    put(object, path, value);
    fields_[owner].insert(path);
  }
  return object;
}

void ManagedFields::update(const Json& before, const Json& after, const std::string& manager) {
  const Fields old = fields_of(before);
  const Fields now = fields_of(after);
  for (const auto& [path, value] : old) {
    if (!now.contains(path)) forget(path);
  }
  for (const auto& [path, value] : now) {
    const auto same = old.find(path);
    if (same != old.end() && same->second == value) continue;
    forget(path);
    fields_[manager + " Update"].insert(path);
  }
}

void ManagedFields::forget(const std::string& path) {
  for (auto& [owner, paths] : fields_) paths.erase(path);
}

std::set<std::string> ManagedFields::owners() const {
  std::set<std::string> names;
  for (const auto& [owner, paths] : fields_) {
    if (!paths.empty()) names.insert(owner);
  }
  return names;
}

}  // namespace dsm::faults
