#include "operator/runtime/tenant_store.h"

#include "kube/config.h"
#include "operator/api/names.h"

namespace dsm::runtime {
namespace {

std::string text(const Json& object, std::string_view key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

Json metadata_of(const Json& object) {
  Json metadata = object.value("metadata", Json::object());
  return metadata.is_object() ? metadata : Json::object();
}

}  // namespace

ObjectId id_of_tenant(const Json& tenant) {
  ObjectId id = id_of_model(tenant);
  id.model = id.key.substr(1);  // "/name"
  return id;
}

ObjectId id_of_namespace(const Json& ns) {
  return id_of_tenant(ns);
}

ObjectId id_of_tenant_child(const Json& object) {
  ObjectId id = id_of_model(object);
  id.model = labelled_tenant(object);
  return id;
}

ObjectId id_of_keys(const Json& secret) {
  ObjectId id = id_of_model(secret);
  id.model = id.key.substr(0, id.key.find('/'));
  return id;
}

Json trimmed_namespace(const Json& ns) {
  const Json metadata = metadata_of(ns);
  Json kept = Json::object();
  for (const char* key : {"name", "uid", "resourceVersion", "labels", "deletionTimestamp"}) {
    if (metadata.contains(key)) kept[key] = metadata[key];
  }
  return {{"metadata", std::move(kept)}};
}

plan::ApiKeys read_keys(const Json& secret) {
  std::map<std::string, std::string> entries;
  const Json data = secret.value("data", Json::object());
  if (data.is_object()) {
    for (const auto& [name, value] : data.items()) {
      if (!value.is_string()) continue;
      entries[name] = kube::base64_decode(value.get_ref<const std::string&>()).value_or("");
    }
  }
  return plan::api_keys(text(metadata_of(secret), "namespace"), entries);
}

std::string labelled_tenant(const Json& ns) {
  const Json labels = metadata_of(ns).value("labels", Json::object());
  return labels.is_object() ? text(labels, api::kTenantLabel) : std::string();
}

bool TenantStore::synced() const {
  return knows_tenants() && namespaces.synced() &&
         std::ranges::all_of(children, [](const auto& cache) { return cache.synced(); });
}

plan::TenantPointer TenantStore::tenant_of(const std::string& ns) const {
  return plan::tenant_of(tenants.all(), ns);
}

std::set<std::string> TenantStore::names() const {
  std::set<std::string> result;
  for (const auto& tenant : tenants.all()) result.insert(tenant->name);
  for (const auto& ns : namespaces.all()) {
    if (std::string name = labelled_tenant(*ns); !name.empty()) result.insert(std::move(name));
  }
  return result;
}

Cache<TenantChildTraits>* TenantStore::children_of(const std::string& kind) {
  for (std::size_t i = 0; i < kTenantKinds.size(); ++i) {
    if (kind == kTenantKinds[i]->kind) return &children[i];
  }
  return nullptr;
}

}  // namespace dsm::runtime
