// What may be said in a DeepSeekTenant's spec, as a typed value. parse_tenant() is the only place
// that reads the JSON; it knows the same fields, defaults and bounds as crds/deepseektenants.yaml
// (a test holds the two together). Plain values, no threading concerns.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "operator/api/spec.h"

namespace dsm::api {

// Who works in the tenant's namespaces.
struct Subject {
  std::string kind = "User";  // User, Group or ServiceAccount
  std::string name;
  std::string ns;  // of a ServiceAccount
};

// What all models of the tenant may have together.
struct TenantBudget {
  std::optional<int> models;  // that run at the same time; absent: no limit
  StringMap resources;        // resource name -> quantity; those not named are not limited
};

// Empty lists allow everything.
struct Allowed {
  std::vector<std::string> models;        // a model.uri, or the beginning of one and '*'
  std::vector<std::string> accelerators;  // resource names
};

// At most one of the two.
struct TenantPriority {
  std::string class_name;    // a PriorityClass that is there already
  std::optional<int> value;  // of one that the operator makes for the tenant
};

// Who may reach the models' port, beside the pods of the tenant's own namespaces.
struct Clients {
  std::vector<std::string> namespaces;
  std::vector<std::string> cidrs;
};

struct TenantSpec {
  std::vector<std::string> namespaces;
  std::vector<Subject> owners;
  TenantBudget budget;
  Allowed allowed;
  TenantPriority priority;
  Clients clients;
  bool keys_required = true;  // requests to the models need an API key
};

// An error is kInvalid, names the field's path and says what to write instead.
Result<TenantSpec> parse_tenant(const nlohmann::json& spec);

// The fields that parse_tenant() knows, for the test that compares them with the CRD.
std::vector<Field> tenant_fields();

// Whether a text is one that a list of Allowed has, or begins as an entry with '*' at its end.
bool matches_any(const std::vector<std::string>& patterns, std::string_view text);

}  // namespace dsm::api
