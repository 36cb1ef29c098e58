#include "ctl/tenant_grant.h"

#include <map>
#include <set>

#include "ctl/objects.h"
#include "operator/api/names.h"
#include "operator/api/spec.h"
#include "operator/plan/budget.h"
#include "operator/plan/children.h"

namespace dsm::ctl {
namespace {

using nlohmann::json;

std::string key_of(const json& object, const std::string& model) {
  return namespace_of(object) + "/" + model;
}

// Of one model, while it is put together.
struct Account {
  const json* model = nullptr;  // nullptr: only pods of it are left
  std::set<std::pair<std::string, int>> groups;
  std::map<std::string, plan::Amounts> demands;  // of a group, by revision
};

std::map<std::string, Account> accounts_of(const TenantWorld& world, const json& model) {
  std::map<std::string, Account> accounts;
  for (const json& one : world.models) accounts[key_of(one, name_of(one))].model = &one;
  accounts[key_of(model, name_of(model))].model = &model;
  for (const json& pod : world.pods) {
    const plan::PodView view = plan::pod_view(pod);
    if (view.group < 0) continue;
    accounts[key_of(pod, label(pod, api::kModelLabel))].groups.emplace(view.revision, view.group);
  }
  for (const json& object : world.revisions) {
    const auto revision = plan::parse_revision(object);
    if (!revision) continue;
    accounts[key_of(object, label(object, api::kModelLabel))].demands[revision->name] =
        plan::group_demand(revision->spec);
  }
  return accounts;
}

plan::BudgetModel budget_model(const std::string& key, const Account& account,
                               const TenantWorld& world, WallTime now) {
  plan::BudgetModel one;
  one.key = key;
  if (account.model != nullptr) {
    const std::string created = text_at(*account.model, "/metadata/creationTimestamp");
    one.created = created.empty() ? now : from_rfc3339(created);
    const bool going = !part(*account.model, "/metadata/deletionTimestamp").is_null();
    if (const auto spec = api::parse_spec(part(*account.model, "/spec"))) {
      const bool grows = !going && plan::not_allowed(*world.tenant, *spec).empty();
      one.wanted = grows ? plan::groups_wanted(*spec, now) : 0;
      one.group = plan::group_demand(*spec);
    }
  }
  plan::hold(one, account.groups, std::nullopt, [&](const std::string& revision) {
    const auto found = account.demands.find(revision);
    return found == account.demands.end() ? nullptr : &found->second;
  });
  return one;
}

}  // namespace

plan::TenantGrant grant_of(const TenantWorld& world, const json& model, WallTime now) {
  const plan::TenantView& tenant = *world.tenant;
  plan::TenantGrant grant;
  grant.tenant = tenant.name;
  grant.keys_required = !tenant.spec || tenant.spec->keys_required;
  grant.priority_class = plan::priority_class_of(tenant);
  const std::string key = key_of(model, name_of(model));
  const std::map<std::string, Account> accounts = accounts_of(world, model);
  const auto spec = api::parse_spec(part(model, "/spec"));
  if (spec) grant.not_allowed = plan::not_allowed(tenant, *spec);
  const bool stays = !spec || !grant.not_allowed.empty();
  if (stays) grant.groups = static_cast<int>(accounts.at(key).groups.size());
  if (!tenant.spec) return grant;  // its budget is not known
  std::vector<plan::BudgetModel> models;
  for (const auto& [name, account] : accounts) {
    models.push_back(budget_model(name, account, world, now));
  }
  const api::TenantBudget& limits = tenant.spec->budget;
  const plan::BudgetShare share = plan::budget(limits, std::move(models)).shares.at(key);
  grant.room = share.room;
  if (stays) return grant;
  grant.groups = share.groups;
  grant.waits_for = plan::why_less(tenant.name, limits, share, plan::groups_wanted(*spec, now));
  return grant;
}

}  // namespace dsm::ctl
