// Tenants as decisions see them: whose a namespace is, and what a model in it may be. Pure values.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "operator/api/tenant.h"

namespace dsm::plan {

// A DeepSeekTenant, understood once.
struct TenantView {
  nlohmann::json object;  // as the API server gave it
  std::string name;
  std::string uid;
  WallTime created;
  bool going = false;  // it is being deleted
  // Read leniently: a namespace stays behind its walls when another field of the spec is wrong.
  std::vector<std::string> namespaces;
  std::optional<api::TenantSpec> spec;  // absent: it is wrong, and `mistake` says how
  std::string mistake;
};
TenantView tenant_view(nlohmann::json object);

using TenantPointer = std::shared_ptr<const TenantView>;

// The tenant of a namespace: of those that name it the oldest, then the first by name. null: none.
TenantPointer tenant_of(std::span<const TenantPointer> tenants, std::string_view ns);

// Why the tenant does not let a model of this spec run, as a sentence that names the field; empty:
// it does.
std::string not_allowed(const TenantView& tenant, const api::Spec& spec);

// The PriorityClass of the pods of the tenant's models; empty: none.
std::string priority_class_of(const TenantView& tenant);

}  // namespace dsm::plan
