// What an API server keeps: the objects of each kind with their resource versions, and what has
// happened to them, for watches. Versions are one row of numbers over all kinds, as etcd's. For
// tests; single-threaded.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "kube/resource.h"

namespace dsm::faults {

using Json = nlohmann::json;

// "namespace/name", or "name" alone.
std::string key_of(const Json& object);
// Whether the object has the label of a selector "key=value", or "key" with any value; "" selects
// all.
bool selected(const Json& object, const std::string& selector);
// The same of a field selector "metadata.name=value".
bool field_selected(const Json& object, const std::string& selector);

class Objects {
 public:
  struct Event {
    std::uint64_t version = 0;
    Json object;
    std::string line;  // as a watch sends it
  };

  std::uint64_t version() const { return version_; }
  // nullptr: there is none.
  const Json* find(const kube::Resource& resource, const std::string& key) const;
  // In the order of their keys.
  const std::map<std::string, Json>& all(const kube::Resource& resource) const;
  // With a new resource version, unless nothing else of it is new; as it is kept.
  const Json& put(const kube::Resource& resource, Json object);
  void erase(const kube::Resource& resource, const std::string& key);
  // Since the beginning, oldest first.
  const std::vector<Event>& events(const kube::Resource& resource) const;

 private:
  struct Kind {
    std::map<std::string, Json> objects;
    std::vector<Event> events;
  };
  void happened(const char* type, Kind& kind, const Json& object);
  const Kind& kind(const kube::Resource& resource) const;

  std::uint64_t version_ = 1;
  mutable std::map<std::string, Kind> kinds_;  // by plural
};

}  // namespace dsm::faults
