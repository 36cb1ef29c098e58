// What the operator knows of tenants: the DeepSeekTenants, the namespaces, what was made for
// tenants, and the API keys, of which only hashes are kept. Written by watches and by the answers
// to our own writes. Thread-safe.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "kube/resource.h"
#include "operator/plan/tenancy.h"
#include "operator/plan/tenant_keys.h"
#include "operator/runtime/store.h"

namespace dsm::runtime {

ObjectId id_of_tenant(const Json& tenant);        // of the tenant `name`
ObjectId id_of_namespace(const Json& ns);         // of itself, by its name
ObjectId id_of_tenant_child(const Json& object);  // of the tenant that its label names
ObjectId id_of_keys(const Json& secret);          // of its namespace

// Name, uid, labels and whether it is being deleted.
Json trimmed_namespace(const Json& ns);
// The hashes of a Secret's entries.
plan::ApiKeys read_keys(const Json& secret);

struct TenantTraits : KeptWhole<plan::TenantView> {
  static ObjectId id(const Json& object) { return id_of_tenant(object); }
  static plan::TenantView trim(Json object) {
    return plan::tenant_view(trimmed(std::move(object)));
  }
  static bool same(const plan::TenantView& a, const plan::TenantView& b) {
    return same_object(a.object, b.object);
  }
};
struct NamespaceTraits : ModelTraits {
  static ObjectId id(const Json& object) { return id_of_namespace(object); }
  static Json trim(const Json& object) { return trimmed_namespace(object); }
};
struct TenantChildTraits : ModelTraits {
  static ObjectId id(const Json& object) { return id_of_tenant_child(object); }
};
struct KeysTraits : KeptWhole<plan::ApiKeys> {
  static ObjectId id(const Json& object) { return id_of_keys(object); }
  static plan::ApiKeys trim(const Json& object) { return read_keys(object); }
  static bool same(const plan::ApiKeys& a, const plan::ApiKeys& b) { return a == b; }
};

// What is made for a tenant.
inline constexpr std::array kTenantKinds = {&kube::kNetworkPolicies, &kube::kLimitRanges,
                                            &kube::kResourceQuotas, &kube::kRoleBindings,
                                            &kube::kPriorityClasses};

struct TenantStore {
  Cache<TenantTraits> tenants;
  Cache<NamespaceTraits> namespaces;
  Cache<KeysTraits> keys;
  std::array<Cache<TenantChildTraits>, kTenantKinds.size()>
      children;  // in the order of kTenantKinds

  // What decisions about models need.
  bool knows_tenants() const { return tenants.synced() && keys.synced(); }
  bool synced() const;
  plan::TenantPointer find(const std::string& name) const { return tenants.find("/" + name); }
  plan::TenantPointer tenant_of(const std::string& ns) const;
  // Every tenant that is there, or whose label a namespace has.
  std::set<std::string> names() const;
  // The cache of a kind; nullptr for any other.
  Cache<TenantChildTraits>* children_of(const std::string& kind);
};

// The tenant whose label a namespace has; empty: none.
std::string labelled_tenant(const Json& ns);

}  // namespace dsm::runtime
