#include "operator/faults/objects.h"

#include "kube/parse.h"

namespace dsm::faults {
namespace {

using kube::member;
using kube::text_of;

}  // namespace

std::string key_of(const Json& object) {
  const Json& metadata = member(object, "metadata");
  const std::string ns = text_of(metadata, "namespace");
  return (ns.empty() ? "" : ns + "/") + text_of(metadata, "name");
}

bool selected(const Json& object, const std::string& selector) {
  if (selector.empty()) return true;
  const auto equals = selector.find('=');
  const Json& labels = member(member(object, "metadata"), "labels");
  if (equals == std::string::npos) return labels.contains(selector);
  return text_of(labels, selector.substr(0, equals)) == selector.substr(equals + 1);
}

bool field_selected(const Json& object, const std::string& selector) {
  if (selector.empty()) return true;
  return "metadata.name=" + text_of(member(object, "metadata"), "name") == selector;
}

const Objects::Kind& Objects::kind(const kube::Resource& resource) const {
  return kinds_[std::string(resource.plural)];
}

const Json* Objects::find(const kube::Resource& resource, const std::string& key) const {
  const auto& objects = all(resource);
  const auto at = objects.find(key);
  return at == objects.end() ? nullptr : &at->second;
}

const std::map<std::string, Json>& Objects::all(const kube::Resource& resource) const {
  return kind(resource).objects;
}

const std::vector<Objects::Event>& Objects::events(const kube::Resource& resource) const {
  return kind(resource).events;
}

void Objects::happened(const char* type, Kind& kind, const Json& object) {
  kind.events.push_back({version_, object, Json{{"type", type}, {"object", object}}.dump() + "\n"});
}

const Json& Objects::put(const kube::Resource& resource, Json object) {
  Kind& kind = kinds_[std::string(resource.plural)];
  const auto [at, fresh] = kind.objects.try_emplace(key_of(object));
  Json& kept = at->second;
  if (!fresh) {
    object["metadata"]["resourceVersion"] = kept["metadata"]["resourceVersion"];
    if (object == kept) return kept;
  }
  object["metadata"]["resourceVersion"] = std::to_string(++version_);
  kept = std::move(object);
  happened(fresh ? "ADDED" : "MODIFIED", kind, kept);
  return kept;
}

void Objects::erase(const kube::Resource& resource, const std::string& key) {
  Kind& kind = kinds_[std::string(resource.plural)];
  const auto node = kind.objects.extract(key);
  if (node.empty()) return;
  Json object = node.mapped();
  object["metadata"]["resourceVersion"] = std::to_string(++version_);
  happened("DELETED", kind, object);
}

}  // namespace dsm::faults
