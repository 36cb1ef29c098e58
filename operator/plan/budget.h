// How many groups of each of a tenant's models may run, so that all of them together stay within
// the tenant's budget. A pure function of the budget and the models:
//
// - What a model holds is never taken away, also when the budget is lowered.
// - No group is begun for which there is no room: not the one more of a rollout, nor one in the
//   place of a lost one. What a model was granted is kept free for it, as far as it fits.
// - What is left goes to models in the order in which they were made.
// - A model that waits for its first group is not overtaken by younger ones, else small models
// could
//   keep a large one out for ever; one that has groups and wants more holds nobody up. Nor does one
//   whose group is larger than the whole budget.
#pragma once

#include <functional>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "operator/api/tenant.h"

namespace dsm::plan {

// Resource -> thousandths of it.
using Amounts = std::map<std::string, double>;

// What a container requests of these where its model says nothing: the LimitRange of a tenant's
// namespaces says so, and the budget counts it so.
inline constexpr std::string_view kDefaultCpu = "100m";
inline constexpr std::string_view kDefaultMemory = "128Mi";

// What the pods of one group request together.
Amounts group_demand(const api::Spec& spec);

// What a pod that is there requests.
Amounts pod_demand(const nlohmann::json& pod);

// Groups that a model wants at this time: `replicas` within the bounds of its scaling.
int groups_wanted(const api::Spec& spec, WallTime now);

struct BudgetModel {
  std::string key;  // namespace/name
  WallTime created;
  int wanted = 0;  // groups
  int held = 0;    // groups that it was granted
  int there = 0;   // groups that have pods, or are being made: one more while it rolls
  Amounts holds;   // what those take, which may be of other revisions than the wanted one
  Amounts group;   // group_demand() of the wanted one
};

// Groups of a model by their revisions and numbers.
using Groups = std::set<std::pair<std::string, int>>;

// Counts groups that are there. Each takes what its revision says, by `demand_of`; where that is
// not known (nullptr), what the model's `group` says. What the model was `granted` before is not
// always known (nullopt): then it holds what is there.
void hold(BudgetModel& model, const Groups& groups, std::optional<int> granted,
          const std::function<const Amounts*(const std::string& revision)>& demand_of);

struct BudgetShare {
  int groups = 0;         // that may run: at most `wanted`
  std::string short_of;   // a resource, or "models"; empty: it has all that it wants
  std::string waits_for;  // key of the model that is before it, when that is what it waits for
  Amounts room = {};      // what it may begin groups with now; negative: nothing
};

struct BudgetResult {
  std::map<std::string, BudgetShare> shares;  // by key
  Amounts used;                               // of the resources in the budget
};

// Why a model of this tenant has less than the `wanted` groups, as a sentence; empty: it has them.
std::string why_less(const std::string& tenant, const api::TenantBudget& limits,
                     const BudgetShare& share, int wanted);

BudgetResult budget(const api::TenantBudget& limits, std::vector<BudgetModel> models);

}  // namespace dsm::plan
