#include "operator/plan/tenancy.h"

#include <algorithm>
#include <tuple>

#include "operator/api/names.h"
#include "operator/plan/json_part.h"

namespace dsm::plan {
namespace {

using nlohmann::json;

std::string joined(const std::vector<std::string>& texts) {
  std::string out;
  for (const std::string& one : texts) out += (out.empty() ? "" : ", ") + one;
  return out;
}

}  // namespace

TenantView tenant_view(json object) {
  TenantView view;
  view.name = text(part(object, "/metadata/name"));
  view.uid = text(part(object, "/metadata/uid"));
  view.created = from_rfc3339(text(part(object, "/metadata/creationTimestamp")));
  view.going = !part(object, "/metadata/deletionTimestamp").is_null();
  for (const json& ns : part(object, "/spec/namespaces")) {
    if (ns.is_string()) view.namespaces.push_back(ns.get<std::string>());
  }
  auto parsed = api::parse_tenant(part(object, "/spec"));
  if (auto name = api::check_name(view.name); !name) {
    view.mistake = name.error().message;
  } else if (!parsed) {
    view.mistake = parsed.error().message;
  } else {
    view.spec = *std::move(parsed);
  }
  view.object = std::move(object);
  return view;
}

TenantPointer tenant_of(std::span<const TenantPointer> tenants, std::string_view ns) {
  TenantPointer best;
  for (const TenantPointer& tenant : tenants) {
    if (tenant->going || std::ranges::find(tenant->namespaces, ns) == tenant->namespaces.end()) {
      continue;
    }
    if (!best || std::tie(tenant->created, tenant->name) < std::tie(best->created, best->name)) {
      best = tenant;
    }
  }
  return best;
}

std::string not_allowed(const TenantView& tenant, const api::Spec& spec) {
  if (!tenant.spec) {
    return "the spec of tenant " + tenant.name +
           " is wrong, so nothing is begun: " + tenant.mistake;
  }
  const api::Allowed& allowed = tenant.spec->allowed;
  const auto refused_uri = [&](const std::string& field, const std::string& uri) -> std::string {
    if (allowed.models.empty() || api::matches_any(allowed.models, uri)) return {};
    return field + ": " + uri + " is not among the models of tenant " + tenant.name +
           "; use one of " + joined(allowed.models);
  };
  if (std::string why = refused_uri("spec.model.uri", spec.model.uri); !why.empty()) return why;
  for (std::size_t i = 0; i < spec.adapters.size(); ++i) {
    const std::string field = "spec.adapters[" + std::to_string(i) + "].uri";
    if (std::string why = refused_uri(field, spec.adapters[i].uri); !why.empty()) return why;
  }
  const std::string& resource = spec.accelerator.resource;
  if (!allowed.accelerators.empty() &&
      std::ranges::find(allowed.accelerators, resource) == allowed.accelerators.end()) {
    return "spec.accelerator.resource: " + resource + " is not among the accelerators of tenant " +
           tenant.name + "; use one of " + joined(allowed.accelerators);
  }
  const std::string priority = priority_class_of(tenant);
  const std::string& wanted = spec.placement.priority_class_name;
  // Pods of one class may push out those of lower ones, whoever's these are.
  if (!wanted.empty() && wanted != priority) {
    return "spec.placement.priorityClassName: " + wanted + " is not the one of tenant " +
           tenant.name + "; " +
           (priority.empty() ? "leave it out: the tenant has none (spec.priority)"
                             : "use " + priority + ", or leave it out");
  }
  return {};
}

std::string priority_class_of(const TenantView& tenant) {
  if (!tenant.spec) return {};
  const api::TenantPriority& priority = tenant.spec->priority;
  return priority.value ? api::tenant_priority_class(tenant.name) : priority.class_name;
}

}  // namespace dsm::plan
