// What the operator says about a DeepSeekTenant, as a typed value with its JSON form. Plain values,
// no threading concerns.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "operator/api/spec.h"
#include "operator/api/status.h"

namespace dsm::api {

struct TenantStatus {
  long observed_generation = 0;
  std::string namespaces;  // "2/3": those that are as the tenant wants them, of those that it names
  int models = 0;          // in its namespaces
  int waiting_models = 0;  // of these: those that the budget lets run less than they want
  StringMap used;          // resource -> quantity that its models hold, of those in the budget
  std::vector<Condition> conditions;  // kReady and kStalled
};

// Both directions keep every field; what is absent or of the wrong type is read as its default.
nlohmann::json to_json(const TenantStatus& status);
TenantStatus parse_tenant_status(const nlohmann::json& status);

// Every path of the JSON form, for the test that compares it with the CRD.
std::vector<std::string> tenant_status_field_paths();

}  // namespace dsm::api
