#include "operator/api/tenant_status.h"

#include <nlohmann/json.hpp>

namespace dsm::api {

using nlohmann::json;

json to_json(const TenantStatus& s) {
  json conditions = json::array();
  for (const Condition& condition : s.conditions) conditions.push_back(to_json(condition));
  return {{"observedGeneration", s.observed_generation},
          {"namespaces", s.namespaces},
          {"models", s.models},
          {"waitingModels", s.waiting_models},
          {"used", s.used},
          {"conditions", std::move(conditions)}};
}

TenantStatus parse_tenant_status(const json& from) {
  TenantStatus s;
  if (!from.is_object()) return s;
  const auto number = [&](const char* name) {
    const auto it = from.find(name);
    return it != from.end() && it->is_number_integer() ? it->get<long>() : 0;
  };
  s.observed_generation = number("observedGeneration");
  s.models = static_cast<int>(number("models"));
  s.waiting_models = static_cast<int>(number("waitingModels"));
  if (const auto it = from.find("namespaces"); it != from.end() && it->is_string()) {
    s.namespaces = it->get<std::string>();
  }
  if (const auto it = from.find("used"); it != from.end() && it->is_object()) {
    for (const auto& [resource, amount] : it->items()) {
      if (amount.is_string()) s.used[resource] = amount.get<std::string>();
    }
  }
  if (const auto it = from.find("conditions"); it != from.end() && it->is_array()) {
    for (const json& condition : *it) {
      if (condition.is_object()) s.conditions.push_back(parse_condition(condition));
    }
  }
  return s;
}

std::vector<std::string> tenant_status_field_paths() {
  TenantStatus full;
  full.conditions.emplace_back();
  std::vector<std::string> paths;
  const json written = to_json(full);
  for (const auto& [key, value] : written.items()) {
    if (key == "conditions") {
      for (const auto& [name, part] : value.front().items()) paths.push_back(key + "[]." + name);
    } else {
      paths.push_back(value.is_object() ? key + "{}" : key);
    }
  }
  return paths;
}

}  // namespace dsm::api
