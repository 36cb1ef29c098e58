#include "operator/runtime/tenant_budgets.h"

#include <algorithm>
#include <set>

#include "operator/api/quantity.h"

namespace dsm::runtime {
namespace {

std::string metadata_text(const Json& object, const char* key) {
  const Json value = object.value(Json::json_pointer(std::string("/metadata/") + key), Json());
  return value.is_string() ? value.get<std::string>() : std::string();
}

}  // namespace

TenantBudgets::SpecPointer TenantBudgets::spec_of(const std::string& key, const Json& model) {
  Json spec = model.value("spec", Json());
  KnownSpec& known = specs_[key];
  if (known.spec != spec) {
    auto parsed = api::parse_spec(spec);
    known.parsed = parsed ? std::make_shared<const api::Spec>(*std::move(parsed)) : nullptr;
    known.spec = std::move(spec);
  }
  return known.parsed;
}

int TenantBudgets::groups_held(const std::string& key, const std::string& uid) const {
  std::set<std::pair<std::string, int>> groups;
  for (const auto& pod : store_.pods.of_model(key)) {
    if (pod->owner_uid == uid && pod->group >= 0) groups.emplace(pod->revision, pod->group);
  }
  const auto reserved = reserved_.find(key);
  const int promised =
      reserved != reserved_.end() && reserved->second.uid == uid ? reserved->second.groups : 0;
  return std::max(static_cast<int>(groups.size()), promised);
}

std::vector<plan::BudgetModel> TenantBudgets::models_of(const plan::TenantView& tenant) {
  std::vector<plan::BudgetModel> models;
  for (const std::string& ns : tenant.namespaces) {
    const plan::TenantPointer owner = tenants_.tenant_of(ns);
    if (owner == nullptr || owner->uid != tenant.uid) continue;
    for (const std::string& key : store_.models.keys_in(ns)) {
      const auto model = store_.models.find(key);
      if (!model || !metadata_text(*model, "deletionTimestamp").empty()) continue;
      const SpecPointer spec = spec_of(key, *model);
      if (!spec) continue;  // it begins nothing, and what its pods hold cannot be told
      plan::BudgetModel one;
      one.key = key;
      one.created = from_rfc3339(metadata_text(*model, "creationTimestamp"));
      one.wanted = plan::not_allowed(tenant, *spec).empty() ? spec->replicas : 0;
      one.held = groups_held(key, metadata_text(*model, "uid"));
      one.group = plan::group_demand(*spec);
      models.push_back(std::move(one));
    }
  }
  return models;
}

std::optional<plan::TenantGrant> TenantBudgets::grant(const std::string& key, const Json& model) {
  const plan::TenantPointer tenant = tenants_.tenant_of(key.substr(0, key.find('/')));
  const std::lock_guard lock(mutex_);
  if (!tenant) {
    reserved_.erase(key);
    return std::nullopt;
  }
  plan::TenantGrant grant;
  grant.keys_required = !tenant->spec || tenant->spec->keys_required;
  grant.priority_class = plan::priority_class_of(*tenant);
  const SpecPointer spec = spec_of(key, model);
  if (!spec) return grant;  // the plan says so itself
  grant.not_allowed = plan::not_allowed(*tenant, *spec);
  if (!grant.not_allowed.empty()) return grant;
  const plan::BudgetResult result = plan::budget(tenant->spec->budget, models_of(*tenant));
  const auto share = result.shares.find(key);
  if (share == result.shares.end()) return grant;  // it is being deleted
  grant.groups = share->second.groups;
  grant.waits_for =
      plan::why_less(tenant->name, tenant->spec->budget, share->second, spec->replicas);
  reserved_[key] = {metadata_text(model, "uid"), grant.groups};
  return grant;
}

void TenantBudgets::forget(const std::string& key) {
  const std::lock_guard lock(mutex_);
  specs_.erase(key);
  reserved_.erase(key);
}

TenantBudgets::Account TenantBudgets::account(const plan::TenantView& tenant) {
  Account account;
  if (!tenant.spec) return account;
  const std::lock_guard lock(mutex_);
  const std::vector<plan::BudgetModel> models = models_of(tenant);
  const plan::BudgetResult result = plan::budget(tenant.spec->budget, models);
  account.usage.models = static_cast<int>(models.size());
  for (const auto& [key, share] : result.shares) {
    account.usage.waiting += share.short_of.empty() ? 0 : 1;
    const auto granted = reserved_.find(key);
    if (granted != reserved_.end() && granted->second.groups < share.groups) {
      account.may_grow.push_back(key);
    }
  }
  for (const auto& [resource, amount] : result.used) {
    account.usage.resources[resource] = api::quantity_text(resource, amount);
  }
  return account;
}

}  // namespace dsm::runtime
