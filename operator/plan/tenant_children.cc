#include "operator/plan/tenant_children.h"

#include "operator/api/names.h"
#include "operator/api/quantity.h"
#include "operator/plan/budget.h"
#include "operator/plan/children.h"

namespace dsm::plan {
namespace {

using nlohmann::json;

constexpr const char* kNamespaceName = "kubernetes.io/metadata.name";

json labels(std::initializer_list<std::pair<std::string_view, std::string_view>> list) {
  json out = json::object();
  for (const auto& [key, value] : list) out[std::string(key)] = value;
  return out;
}

json metadata(const TenantView& tenant, const std::string& name) {
  return {{"name", name},
          {"labels", labels({{api::kManagedByLabel, api::kManagedByValue},
                             {api::kTenantLabel, tenant.name}})},
          {"ownerReferences", json::array({{{"apiVersion", api::kApiVersion},
                                            {"kind", api::kTenantKind},
                                            {"name", tenant.name},
                                            {"uid", tenant.uid},
                                            {"controller", true},
                                            {"blockOwnerDeletion", true}}})}};
}

json object(const TenantView& tenant, const char* api_version, const char* kind,
            const std::string& ns, std::string_view suffix = "") {
  json out = {
      {"apiVersion", api_version},
      {"kind", kind},
      {"metadata", metadata(tenant, std::string(api::kTenantObject) + std::string(suffix))}};
  out["metadata"]["namespace"] = ns;
  return out;
}

json resource_quota(const TenantView& tenant, const std::string& ns) {
  json hard = json::object();
  for (const auto& [resource, quantity] : tenant.spec->budget.resources) {
    hard["requests." + resource] = quantity;
  }
  json out = object(tenant, "v1", "ResourceQuota", ns);
  out["spec"] = {{"hard", std::move(hard)}};
  return out;
}

// A quota on requests refuses a container that has none, so each gets some.
json limit_range(const TenantView& tenant, const std::string& ns) {
  json requests = json::object();
  const api::StringMap& budget = tenant.spec->budget.resources;
  if (budget.contains("cpu")) requests["cpu"] = kDefaultCpu;
  if (budget.contains("memory")) requests["memory"] = kDefaultMemory;
  json out = object(tenant, "v1", "LimitRange", ns);
  out["spec"] = {
      {"limits", json::array({{{"type", "Container"}, {"defaultRequest", std::move(requests)}}})}};
  return out;
}

json pods(json match_labels) {
  return {{"podSelector", {{"matchLabels", std::move(match_labels)}}}};
}

json namespaces(json match_labels) {
  return {{"namespaceSelector", {{"matchLabels", std::move(match_labels)}}}};
}

json port(int number, const char* protocol = "TCP") {
  return {{"port", number}, {"protocol", protocol}};
}

json workers() {
  return labels({{api::kNameLabel, api::kNameValue}});
}

// The cluster's DNS: its pods, or the cache on each node.
json dns() {
  return {{"to", json::array({namespaces({{kNamespaceName, "kube-system"}}),
                              {{"ipBlock", {{"cidr", "169.254.20.10/32"}}}}})},
          {"ports", json::array({port(53, "UDP"), port(53)})}};
}

json network_policy(const TenantView& tenant, const std::string& ns, std::string_view suffix,
                    json spec) {
  json out = object(tenant, "networking.k8s.io/v1", "NetworkPolicy", ns, suffix);
  out["spec"] = std::move(spec);
  return out;
}

json default_deny(const TenantView& tenant, const std::string& ns) {
  return network_policy(tenant, ns, "-default-deny",
                        {{"podSelector", json::object()}, {"policyTypes", {"Ingress", "Egress"}}});
}

// What every pod may reach: names, and the tenant's models.
json client_policy(const TenantView& tenant, const std::string& ns) {
  json models = namespaces(labels({{api::kTenantLabel, tenant.name}}));
  models.update(pods(workers()));
  return network_policy(
      tenant, ns, "-clients",
      {{"podSelector", json::object()},
       {"policyTypes", {"Egress"}},
       {"egress",
        json::array({dns(),
                     {{"to", json::array({std::move(models)})},
                      {"ports", json::array({port(api::kHttpPort), port(api::kGrpcPort)})}}})}});
}

// Workers: ranks meet on the control port and on ports that the system chooses, the operator reads
// their status, clients use the API.
json serving_policy(const TenantView& tenant, const std::string& ns, const TenantConfig& config) {
  json operators = namespaces({{kNamespaceName, config.operator_namespace}});
  operators.update(pods(labels({{api::kNameLabel, api::kManagedByValue}})));
  json clients = json::array({namespaces(labels({{api::kTenantLabel, tenant.name}}))});
  for (const std::string& other : tenant.spec->clients.namespaces) {
    clients.push_back(namespaces({{kNamespaceName, other}}));
  }
  for (const std::string& cidr : tenant.spec->clients.cidrs) {
    clients.push_back({{"ipBlock", {{"cidr", cidr}}}});
  }
  const json ranks = json::array({pods(workers())});
  return network_policy(
      tenant, ns, "-serving",
      {{"podSelector", {{"matchLabels", workers()}}},
       {"policyTypes", {"Ingress", "Egress"}},
       {"ingress",
        json::array({{{"from", ranks}},
                     {{"from", json::array({std::move(operators)})},
                      {"ports", json::array({port(api::kInternalPort)})}},
                     {{"from", std::move(clients)},
                      {"ports", json::array({port(api::kHttpPort), port(api::kGrpcPort)})}}})},
       {"egress", json::array({{{"to", ranks}}})}});
}

json role_binding(const TenantView& tenant, const std::string& ns, const TenantConfig& config) {
  constexpr const char* kRbac = "rbac.authorization.k8s.io";
  json subjects = json::array();
  for (const api::Subject& owner : tenant.spec->owners) {
    json subject = {{"kind", owner.kind}, {"name", owner.name}};
    if (owner.ns.empty()) {
      subject["apiGroup"] = kRbac;
    } else {
      subject["namespace"] = owner.ns;
    }
    subjects.push_back(std::move(subject));
  }
  json out = object(tenant, "rbac.authorization.k8s.io/v1", "RoleBinding", ns, "-owners");
  out["roleRef"] = {{"apiGroup", kRbac}, {"kind", "ClusterRole"}, {"name", config.owner_role}};
  out["subjects"] = std::move(subjects);
  return out;
}

// Equal but for how quantities are written.
bool same_amounts(const json& wanted, const json& actual) {
  if (wanted.is_string() && actual.is_string()) {
    return wanted == actual || api::same_quantity(wanted.get_ref<const std::string&>(),
                                                  actual.get_ref<const std::string&>());
  }
  if (wanted.is_array()) {
    if (!actual.is_array() || wanted.size() != actual.size()) return false;
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      if (!same_amounts(wanted[i], actual[i])) return false;
    }
    return true;
  }
  if (!wanted.is_object()) return wanted == actual;
  if (!actual.is_object()) return false;
  for (const auto& [key, value] : wanted.items()) {
    if (!actual.contains(key) || !same_amounts(value, actual[key])) return false;
  }
  return true;
}

}  // namespace

std::vector<json> tenant_objects(const TenantView& tenant, const std::string& ns,
                                 const TenantConfig& config) {
  std::vector<json> out = {default_deny(tenant, ns), serving_policy(tenant, ns, config),
                           client_policy(tenant, ns)};
  const api::StringMap& budget = tenant.spec->budget.resources;
  if (budget.contains("cpu") || budget.contains("memory")) out.push_back(limit_range(tenant, ns));
  if (!budget.empty()) out.push_back(resource_quota(tenant, ns));
  if (!tenant.spec->owners.empty()) out.push_back(role_binding(tenant, ns, config));
  return out;
}

json priority_class_json(const TenantView& tenant) {
  return {{"apiVersion", "scheduling.k8s.io/v1"},
          {"kind", "PriorityClass"},
          {"metadata", metadata(tenant, api::tenant_priority_class(tenant.name))},
          {"value", tenant.spec->priority.value.value_or(0)},
          {"description", "Pods of the models of tenant " + tenant.name + "."}};
}

json namespace_labels(const TenantView& tenant) {
  return labels({{api::kTenantLabel, tenant.name}, {api::kPodSecurityLabel, "restricted"}});
}

Match compare(const json& wanted, const json& actual) {
  const auto differs = [&](const char* field) {
    return wanted.contains(field) && wanted[field] != actual.value(field, json());
  };
  if (differs("roleRef") || differs("value")) return Match::kImmutable;
  if (!says_the_same(wanted["metadata"], actual.value("metadata", json()))) return Match::kDiffers;
  if (differs("subjects") || differs("description")) return Match::kDiffers;
  if (!wanted.contains("spec")) return Match::kSame;
  const json there = actual.value("spec", json());
  // A selector or a rule more would be another wall; a number more in a quota only restricts.
  const bool same = wanted["kind"] == "NetworkPolicy" ? wanted["spec"] == there
                                                      : same_amounts(wanted["spec"], there);
  return same ? Match::kSame : Match::kDiffers;
}

json quota_patch(const json& wanted, const json& actual) {
  if (wanted["kind"] != "ResourceQuota") return {};
  const json there = actual.value(json::json_pointer("/spec/hard"), json::object());
  json hard = wanted["spec"]["hard"];
  bool stale = false;
  for (const auto& [resource, quantity] : there.items()) {
    if (hard.contains(resource) || !resource.starts_with("requests.")) continue;
    hard[resource] = nullptr;
    stale = true;
  }
  if (!stale) return {};
  json patch = wanted;
  patch["spec"]["hard"] = std::move(hard);
  return patch;
}

}  // namespace dsm::plan
