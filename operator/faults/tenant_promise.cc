#include "operator/faults/tenant_promise.h"

#include <algorithm>
#include <cmath>
#include <tuple>

#include "kube/parse.h"
#include "operator/api/names.h"
#include "operator/api/quantity.h"
#include "operator/faults/admission.h"
#include "operator/plan/rollout_promise.h"
#include "operator/plan/simulate_json.h"

namespace dsm::faults {
namespace {

using kube::member;
using kube::text_of;
using plan::label;

constexpr const char* kModels = "models";
constexpr double kNoCeiling = std::numeric_limits<double>::infinity();
constexpr double kDefaultMilliCpu = 100;

const Json& budget_of(const Json& tenant) {
  return member(member(tenant, "spec"), "budget");
}

std::string uid_of(const Json& object) {
  return text_of(object["metadata"], "uid");
}

std::string namespace_of(const Json& object) {
  return text_of(object["metadata"], "namespace");
}

std::string tenant_label(const Json& object) {
  return text_of(member(object["metadata"], "labels"), api::kTenantLabel);
}

bool names(const Json& tenant, const std::string& ns) {
  const Json& all = tenant["spec"]["namespaces"];
  return std::ranges::find(all, Json(ns)) != all.end();
}

std::string text_of_amount(const std::string& resource, double amount) {
  return resource == kModels ? std::to_string(std::lround(amount))
                             : api::quantity_text(resource, amount);
}

// What a pod that asks for nothing counts as.
double otherwise(const std::string& resource) {
  return resource == "cpu" ? kDefaultMilliCpu : 0;
}

// Of the whole group of a pod.
double demand_of(const Json& pod, const std::string& resource) {
  const double said = requested(pod, resource);
  const Json& args = pod["spec"]["containers"][0]["args"];
  const auto at = std::ranges::find(args, Json("--tensor-parallel"));
  return (said > 0 ? said : otherwise(resource)) * std::stoi((at + 1)->get<std::string>());
}

}  // namespace

const Json* TenantPromises::owner_of(const std::string& ns) const {
  const Json* best = nullptr;
  const auto age = [](const Json& tenant) {
    const Json& metadata = tenant["metadata"];
    return std::tuple(text_of(metadata, "creationTimestamp"), text_of(metadata, "name"));
  };
  for (const auto& [key, tenant] : objects().all(kube::kDeepSeekTenants)) {
    if (names(tenant, ns) && (best == nullptr || age(tenant) < age(*best))) best = &tenant;
  }
  return best;
}

TenantPromises::Account TenantPromises::account_of(const Json& tenant) const {
  Account account;
  account.tenant = &tenant;
  const Json& budget = budget_of(tenant);
  for (const auto& [resource, quantity] : member(budget, "resources").items()) {
    account.limits[resource] = api::milli_of(quantity.get<std::string>()).value();
    account.used[resource] = 0;
  }
  if (budget.contains(kModels)) account.limits[kModels] = budget[kModels].get<double>();
  for (const Json& ns : tenant["spec"]["namespaces"]) {
    if (owner_of(ns.get<std::string>()) == &tenant) add_models(ns.get<std::string>(), account);
  }
  std::ranges::sort(account.models, {},
                    [](const Model& model) { return std::tie(model.created, model.key); });
  return account;
}

void TenantPromises::add_models(const std::string& ns, Account& account) const {
  std::map<std::string, std::map<std::string, const Json*>> groups;  // a pod of each, by model
  std::map<std::string, int> ready;
  for (const plan::SimulatedPod& pod : world_.server().kubelets().all_pods()) {
    if (namespace_of(pod.object) != ns || pod.lost) continue;
    const std::string model = ns + "/" + label(pod.object, api::kModelLabel);
    groups[model][label(pod.object, api::kRevisionLabel) + "-" +
                  label(pod.object, api::kGroupLabel)] = &pod.object;
    ready[model] += plan::leads_standing_group(pod);
  }
  for (const auto& [key, some] : groups) {
    account.used[kModels] += 1;
    for (auto& [resource, used] : account.used) {
      for (const auto& [name, pod] : some) {
        if (resource != kModels) used += demand_of(*pod, resource);
      }
    }
  }
  for (const auto& [key, model] : objects().all(kube::kDeepSeekModels)) {
    if (namespace_of(model) != ns) continue;
    const Json& spec = model["spec"];
    Model one{.key = key,
              .created = text_of(model["metadata"], "creationTimestamp"),
              .wanted = plan::groups_asked_for(spec),
              .groups = static_cast<int>(groups[key].size()),
              .ready = ready[key],
              .group = {}};
    const Json& requests = spec["template"]["resources"]["requests"];
    for (const auto& [resource, limit] : account.limits) {
      const double said = api::milli_of(text_of(requests, resource)).value_or(0);
      one.group[resource] =
          (said > 0 ? said : otherwise(resource)) * spec["parallelism"]["tensor"].get<int>();
    }
    account.models.push_back(std::move(one));
  }
}

std::string TenantPromises::missing(const Account& account, const Model& model) {
  for (const auto& [resource, limit] : account.limits) {
    const auto used = account.used.find(resource);
    const double so_far = used == account.used.end() ? 0 : used->second;
    const double more =
        resource == kModels ? (model.groups == 0 ? 1 : 0) : model.group.at(resource);
    if (more > 0 && so_far + more > limit) return resource;
  }
  return {};
}

bool TenantPromises::is_cramped(const Json& model) const {
  const Json* const tenant = owner_of(namespace_of(model));
  if (tenant == nullptr) return false;
  const Account account = account_of(*tenant);
  return std::ranges::any_of(account.models, [&](const Model& each) {
    const bool waits = each.groups < each.wanted || each.key == key_of(model);
    return waits && !missing(account, each).empty();
  });
}

// As the tenants' loop says, which shares what it knows of tenants with the one of the models.
bool TenantPromises::all_is_seen() const {
  for (const auto& [key, tenant] : objects().all(kube::kDeepSeekTenants)) {
    const Json& status = member(tenant, "status");
    const Json& seen = member(status, "observedGeneration");
    if (seen != tenant["metadata"]["generation"]) return false;
  }
  for (const auto& [key, ns] : objects().all(kube::kNamespaces)) {
    const Json* const owner = owner_of(key);
    const std::string wanted = owner == nullptr ? "" : text_of((*owner)["metadata"], "name");
    if (tenant_label(ns) != wanted) return false;
  }
  return true;
}

std::string TenantPromises::groups_of(const Account& account) {
  std::string out;
  for (const Model& model : account.models) {
    out += (out.empty() ? "" : ", ") + model.key + " " + std::to_string(model.groups);
  }
  return out;
}

void TenantPromises::check_second() {
  std::map<std::string, Json> said;  // what the users have, by the tenant's uid
  for (const auto& [key, tenant] : objects().all(kube::kDeepSeekTenants)) {
    said[uid_of(tenant)] = tenant["metadata"]["generation"];
  }
  const int late = world_.late_writes();
  const bool edited = said_ != said;
  const bool excused = late_writes_ != late;
  said_ = std::move(said);
  late_writes_ = late;
  const bool seen = all_is_seen();
  std::map<std::string, Amounts> ceilings;
  for (const auto& [key, tenant] : objects().all(kube::kDeepSeekTenants)) {
    const Account account = account_of(tenant);
    const Amounts& before = ceilings_[uid_of(tenant)];
    for (const auto& [resource, limit] : account.limits) {
      const auto found = account.used.find(resource);
      const double used = found == account.used.end() ? 0 : found->second;
      const auto last = before.find(resource);
      const bool from_now = excused || edited || last == before.end();
      double ceiling = from_now ? kNoCeiling : last->second;
      if (used > ceiling) {
        world_.breach("tenant " + key + " has " + text_of_amount(resource, used) + " " + resource +
                      ", where " + text_of_amount(resource, ceiling) +
                      " are its budget, or ran before that was lowered: " + groups_of(account));
        ceiling = used;
      }
      ceiling = seen ? std::max(limit, std::min(ceiling, used)) : kNoCeiling;
      ceilings[uid_of(tenant)][resource] = ceiling;
    }
  }
  ceilings_ = std::move(ceilings);
}

void TenantPromises::check_end() {
  for (const auto& [key, tenant] : objects().all(kube::kDeepSeekTenants)) check_account(tenant);
  for (const auto& [key, ns] : objects().all(kube::kNamespaces)) check_walls(key);
  for (const auto& [key, object] : objects().all(kube::kPriorityClasses)) {
    const std::string tenant = tenant_label(object);
    if (objects().find(kube::kDeepSeekTenants, tenant) == nullptr) {
      world_.breach("PriorityClass " + key + " is an orphan");
    }
  }
}

void TenantPromises::check_account(const Json& tenant) {
  const Account account = account_of(tenant);
  std::string first_waiting;
  for (const Model& model : account.models) {
    if (model.ready < model.wanted && first_waiting.empty() && missing(account, model).empty()) {
      world_.breach(model.key + " has " + std::to_string(model.ready) + " of " +
                    std::to_string(model.wanted) + " groups ready, and there is room for more");
    }
    Account empty = account;
    empty.used.clear();
    const bool could_fit = missing(empty, model).empty();
    if (model.groups == 0 && model.wanted > 0 && could_fit && first_waiting.empty()) {
      first_waiting = model.key;
    }
  }
  const std::string name = text_of(tenant["metadata"], "name");
  const bool has_class =
      objects().find(kube::kPriorityClasses, api::tenant_priority_class(name)) != nullptr;
  if (has_class != member(member(tenant["spec"], "priority"), "value").is_number()) {
    world_.breach("tenant " + name + (has_class ? " has a" : " has no") + " PriorityClass");
  }
  check_used(account);
}

void TenantPromises::check_used(const Account& account) {
  const Json& status = member(*account.tenant, "status");
  const std::string name = text_of((*account.tenant)["metadata"], "name");
  const auto expect = [&](const std::string& what, const Json& is, const Json& wanted) {
    if (is == wanted) return;
    world_.breach("tenant " + name + ": " + what + " is " + is.dump() + ", not " + wanted.dump());
  };
  for (const auto& [resource, used] : account.used) {
    if (resource == kModels) continue;
    const std::string said = text_of(member(status, "used"), resource);
    expect("used " + resource, api::milli_of(said).value_or(-1), used);
  }
  expect("models", member(status, "models"), std::ssize(account.models));
  const auto waiting = std::ranges::count_if(
      account.models, [](const Model& model) { return model.ready < model.wanted; });
  expect("waitingModels", member(status, "waitingModels"), waiting);
}

// Kinds and names of what a tenant has in each of its namespaces.
std::vector<std::string> TenantPromises::walls_of(const Json& tenant) const {
  std::vector<std::string> walls;
  const auto add = [&](const kube::Resource& resource, const std::string& suffix = "") {
    walls.push_back(std::string(resource.kind) + " " + std::string(api::kTenantObject) + suffix);
  };
  for (const char* const suffix : {"-clients", "-default-deny", "-serving"}) {
    add(kube::kNetworkPolicies, suffix);
  }
  const Json& resources = member(budget_of(tenant), "resources");
  if (resources.contains("cpu")) add(kube::kLimitRanges);
  if (!resources.empty()) add(kube::kResourceQuotas);
  if (!member(tenant["spec"], "owners").empty()) add(kube::kRoleBindings, "-owners");
  return walls;
}

void TenantPromises::check_walls(const std::string& ns) {
  const Json* const owner = owner_of(ns);
  const std::string name = owner == nullptr ? "" : text_of((*owner)["metadata"], "name");
  const std::string said = tenant_label(*objects().find(kube::kNamespaces, ns));
  if (said != name) world_.breach("namespace " + ns + " is labelled " + said + ", not " + name);
  std::vector<std::string> there;
  for (const kube::Resource* const resource : {&kube::kNetworkPolicies, &kube::kLimitRanges,
                                               &kube::kResourceQuotas, &kube::kRoleBindings}) {
    for (const auto& [key, object] : objects().all(*resource)) {
      if (namespace_of(object) != ns) continue;
      there.push_back(std::string(resource->kind) + " " + text_of(object["metadata"], "name"));
      if (owner == nullptr || object["metadata"]["ownerReferences"][0]["uid"] != uid_of(*owner)) {
        world_.breach(there.back() + " in " + ns + " is not its tenant's");
      }
    }
  }
  const std::vector<std::string> wanted =
      owner == nullptr ? std::vector<std::string>() : walls_of(*owner);
  if (there != wanted) {
    world_.breach("namespace " + ns + " has " + Json(there).dump() + ", not " +
                  Json(wanted).dump());
  }
  const Json* const quota =
      objects().find(kube::kResourceQuotas, ns + "/" + std::string(api::kTenantObject));
  if (owner == nullptr || quota == nullptr) return;
  Json hard = Json::object();
  for (const auto& [resource, quantity] : member(budget_of(*owner), "resources").items()) {
    hard["requests." + resource] = quantity;
  }
  if ((*quota)["spec"]["hard"] != hard) {
    world_.breach("the quota of " + ns + " is " + (*quota)["spec"]["hard"].dump());
  }
}

}  // namespace dsm::faults
