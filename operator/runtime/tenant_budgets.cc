#include "operator/runtime/tenant_budgets.h"

#include <algorithm>
#include <set>

#include "operator/api/quantity.h"
#include "operator/api/status.h"
#include "operator/plan/children.h"
#include "operator/plan/groups.h"
#include "operator/plan/rollback.h"

namespace dsm::runtime {
namespace {

std::string metadata_text(const Json& object, const char* key) {
  const Json value = object.value(Json::json_pointer(std::string("/metadata/") + key), Json());
  return value.is_string() ? value.get<std::string>() : std::string();
}

}  // namespace

const TenantBudgets::Facts& TenantBudgets::facts_of(const std::string& key, const Json& model) {
  const std::uint64_t version = id_of_model(model).version;
  Facts& facts = facts_[key];
  if (facts.version != version || version == 0) {
    auto parsed = api::parse_spec(model.value("spec", Json()));
    facts.version = version;
    facts.uid = metadata_text(model, "uid");
    facts.created = from_rfc3339(metadata_text(model, "creationTimestamp"));
    facts.going = !metadata_text(model, "deletionTimestamp").empty();
    facts.spec = parsed ? std::make_shared<const api::Spec>(*std::move(parsed)) : nullptr;
    const auto rollback = api::parse_status(model.value("status", Json())).rollback;
    facts.went_back_to = rollback ? rollback->to : "";
  }
  return facts;
}

const TenantBudgets::Facts* TenantBudgets::facts_of(const std::string& key) {
  const auto there = facts_.find(key);
  const std::uint64_t version = store_.models.version(key);
  if (there != facts_.end() && version != 0 && there->second.version == version) {
    return &there->second;
  }
  const auto model = store_.models.find(key);
  return model ? &facts_of(key, *model) : nullptr;
}

const plan::Amounts* TenantBudgets::demand_of(const std::string& key, const std::string& revision) {
  auto& of_model = demands_[key];
  if (!of_model.contains(revision)) {
    for (const auto& object : store_.revisions.of_model(key)) {
      if (auto parsed = plan::parse_revision(*object)) {
        of_model.emplace(parsed->name, plan::group_demand(parsed->spec));
      }
    }
  }
  if (const auto found = of_model.find(revision); found != of_model.end()) return &found->second;
  const auto& learnt = learnt_[key];
  const auto found = learnt.find(revision);
  return found == learnt.end() ? nullptr : &found->second;
}

void TenantBudgets::learn(const std::vector<Json>& pods) {
  using Group = std::tuple<std::string, std::string, int>;  // model, revision, number
  std::map<Group, plan::Amounts> groups;
  for (const Json& pod : pods) {
    const plan::PodView view = plan::pod_view(pod);
    if (view.group < 0) continue;
    plan::Amounts& sum = groups[{id_of_child(pod).model, view.revision, view.group}];
    for (const auto& [resource, amount] : plan::pod_demand(pod)) sum[resource] += amount;
  }
  const std::lock_guard lock(mutex_);
  for (const auto& [group, sum] : groups) {
    const auto& [model, revision, number] = group;
    plan::Amounts& demand = learnt_[model][revision];
    for (const auto& [resource, amount] : sum) {
      demand[resource] = std::max(demand[resource], amount);
    }
  }
}

const TenantBudgets::Reserved* TenantBudgets::reserved_of(const std::string& key,
                                                          const std::string& uid) const {
  const auto found = reserved_.find(key);
  return found == reserved_.end() || found->second.uid != uid ? nullptr : &found->second;
}

bool TenantBudgets::takes_room(const plan::PodView& pod) const {
  if (pod.group < 0) return false;
  const auto node = pod.deletion ? store_.nodes.find(pod.node) : nullptr;
  return !plan::pod_stuck(pod, node != nullptr && !node->ready, clock_.wall_now());
}

void TenantBudgets::add_held(const Facts* facts, plan::BudgetModel& model) {
  plan::Groups groups;
  for (const auto& pod : store_.pods.of_model(model.key)) {
    if (takes_room(*pod)) groups.emplace(pod->revision, pod->group);
  }
  const Reserved* reserved = facts == nullptr ? nullptr : reserved_of(model.key, facts->uid);
  std::optional<int> granted;
  if (reserved != nullptr) {
    granted = facts->going ? 0 : reserved->groups;
    groups.insert(reserved->begun.begin(), reserved->begun.end());
  }
  plan::hold(model, groups, granted,
             [&](const std::string& revision) { return demand_of(model.key, revision); });
}

std::vector<plan::BudgetModel> TenantBudgets::models_of(const plan::TenantView& tenant) {
  std::vector<plan::BudgetModel> models;
  const WallTime now = clock_.wall_now();
  for (const std::string& ns : tenant.namespaces) {
    const plan::TenantPointer owner = tenants_.tenant_of(ns);
    if (owner == nullptr || owner->uid != tenant.uid) continue;
    std::set<std::string> keys;
    for (std::string& key : store_.models.keys_in(ns)) keys.insert(std::move(key));
    for (std::string& key : store_.pods.models_in(ns)) keys.insert(std::move(key));
    for (const std::string& key : keys) {
      const Facts* facts = facts_of(key);
      plan::BudgetModel one;
      one.key = key;
      if (facts != nullptr) one.created = facts->created;
      if (facts != nullptr && facts->spec) {
        const bool grows = !facts->going && plan::not_allowed(tenant, *facts->spec).empty();
        one.wanted = grows ? plan::groups_wanted(*facts->spec, now) : 0;
        one.group = plan::group_demand(*facts->spec);
        // Which of the two the next group is of is the plan's to decide: there must be room for
        // either.
        const plan::Amounts* back =
            facts->went_back_to.empty() ? nullptr : demand_of(key, facts->went_back_to);
        if (back != nullptr) {
          for (const auto& [resource, amount] : *back) {
            one.group[resource] = std::max(one.group[resource], amount);
          }
        }
      }
      add_held(facts, one);
      models.push_back(std::move(one));
    }
    // Of models that are gone with all of their pods.
    const std::string prefix = ns + "/";
    for (Demands* const some : {&demands_, &learnt_}) {
      for (auto at = some->lower_bound(prefix);
           at != some->end() && at->first.starts_with(prefix);) {
        at = keys.contains(at->first) ? std::next(at) : some->erase(at);
      }
    }
  }
  return models;
}

std::vector<std::string> TenantBudgets::not_allowed(const plan::TenantView& tenant,
                                                    const std::string& key) {
  std::vector<std::string> names;
  for (const auto& object : store_.revisions.of_model(key)) {
    const auto revision = plan::parse_revision(*object);
    if (revision && !plan::not_allowed(tenant, revision->spec).empty()) {
      names.push_back(revision->name);
    }
  }
  return names;
}

int TenantBudgets::kept(const std::string& key, const std::string& uid) {
  Reserved& reserved = reserved_[key];
  if (reserved.uid != uid) {
    plan::Groups groups;
    for (const auto& pod : store_.pods.of_model(key)) {
      if (pod->owner_uid == uid && pod->group >= 0) groups.emplace(pod->revision, pod->group);
    }
    reserved = {uid, static_cast<int>(groups.size()), {}, std::nullopt};
  }
  return reserved.groups;
}

plan::Plan TenantBudgets::plan(const std::string& key, const Json& model, const Planner& planner) {
  if (!tenants_.tenant_of(key.substr(0, key.find('/')))) {
    const std::lock_guard lock(mutex_);
    reserved_.erase(key);
    return planner(std::nullopt);
  }
  // Held until it is known what the plan begins.
  const std::lock_guard lock(mutex_);
  plan::Plan plan = planner(grant(key, model));
  const auto reserved = reserved_.find(key);
  if (reserved == reserved_.end()) return plan;
  for (const Json& pod : plan.create_pods) {
    const plan::PodView view = plan::pod_view(pod);
    reserved->second.begun.emplace(view.revision, view.group);
  }
  if (!plan.lacks_room) {
    reserved->second.no_room_since.reset();
  } else if (!reserved->second.no_room_since) {
    reserved->second.no_room_since = clock_.wall_now();
  }
  return plan;
}

std::optional<plan::TenantGrant> TenantBudgets::grant(const std::string& key, const Json& model) {
  const plan::TenantPointer tenant = tenants_.tenant_of(key.substr(0, key.find('/')));
  if (!tenant) return std::nullopt;
  const std::string uid = metadata_text(model, "uid");
  if (const auto last = reserved_.find(key); last != reserved_.end()) last->second.begun.clear();
  plan::TenantGrant grant;
  grant.tenant = tenant->name;
  grant.keys_required = !tenant->spec || tenant->spec->keys_required;
  grant.priority_class = plan::priority_class_of(*tenant);
  const std::shared_ptr<const api::Spec> spec = facts_of(key, model).spec;
  if (spec) grant.not_allowed = plan::not_allowed(*tenant, *spec);
  const bool stays = !spec || !grant.not_allowed.empty();
  if (stays) grant.groups = kept(key, uid);
  if (!tenant->spec) return grant;  // its budget is not known
  if (!stays && !plan::rollback_request(model).empty()) {
    grant.revisions_not_allowed = not_allowed(*tenant, key);
  }
  const plan::BudgetResult result = plan::budget(tenant->spec->budget, models_of(*tenant));
  const auto share = result.shares.find(key);
  if (share == result.shares.end()) return grant;  // it was deleted meanwhile
  grant.room = share->second.room;
  if (const Reserved* last = reserved_of(key, uid)) grant.no_room_since = last->no_room_since;
  if (stays) return grant;
  grant.groups = share->second.groups;
  grant.waits_for = plan::why_less(tenant->name, tenant->spec->budget, share->second,
                                   plan::groups_wanted(*spec, clock_.wall_now()));
  reserved_[key] = {uid, grant.groups, {}, grant.no_room_since};
  return grant;
}

void TenantBudgets::forget(const std::string& key) {
  const std::lock_guard lock(mutex_);
  facts_.erase(key);
  reserved_.erase(key);
}

void TenantBudgets::begin() {
  const std::lock_guard lock(mutex_);
  reserved_.clear();
}

TenantBudgets::Account TenantBudgets::account(const plan::TenantView& tenant) {
  Account account;
  if (!tenant.spec) return account;
  const std::lock_guard lock(mutex_);
  const std::vector<plan::BudgetModel> models = models_of(tenant);
  const plan::BudgetResult result = plan::budget(tenant.spec->budget, models);
  account.usage.models = static_cast<int>(std::ranges::count_if(
      models, [&](const plan::BudgetModel& model) { return facts_.contains(model.key); }));
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
