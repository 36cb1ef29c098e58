// The objects that a tenant has in its namespaces, and its PriorityClass, as JSON, and how they
// compare with what is there. Private to operator/plan.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "operator/plan/tenancy.h"

namespace dsm::plan {

// How the operator was installed.
struct TenantConfig {
  std::string owner_role;          // ClusterRole of owners in their namespaces
  std::string operator_namespace;  // where the operator's pods are
};

// Everything in one namespace; `tenant` has a spec.
std::vector<nlohmann::json> tenant_objects(const TenantView& tenant, const std::string& ns,
                                           const TenantConfig& config);
// The PriorityClass of a tenant that says a value for one.
nlohmann::json priority_class_json(const TenantView& tenant);

// Only the labels of a namespace that are ours; none of them: what a namespace is left with.
nlohmann::json namespace_labels(const TenantView& tenant);

enum class Match {
  kSame,
  kDiffers,    // an apply mends it
  kImmutable,  // it has to be removed and made again
};
Match compare(const nlohmann::json& wanted, const nlohmann::json& actual);

// A merge patch of a ResourceQuota that also has requests which the budget names no longer: what is
// wanted, and null for those. An apply would leave them, since a POST has put them there. Null: it
// has none.
nlohmann::json quota_patch(const nlohmann::json& wanted, const nlohmann::json& actual);

}  // namespace dsm::plan
