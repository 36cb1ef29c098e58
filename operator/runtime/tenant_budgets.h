// What each model gets from its tenant's budget. A model's look plans with its grant, and what it
// begins counts at once, so that two looks at the same time cannot give the same room away twice;
// what was granted stays the model's when a group of it is lost, as far as there is room.
// Thread-safe.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "operator/plan/budget.h"
#include "operator/plan/plan.h"
#include "operator/plan/tenant.h"
#include "operator/runtime/tenant_store.h"

namespace dsm::runtime {

class TenantBudgets {
 public:
  // All must outlive it.
  TenantBudgets(const Store& store, const TenantStore& tenants, Clock& clock)
      : store_(store), tenants_(tenants), clock_(clock) {}

  // nullopt: the model's namespace has no tenant.
  using Planner = std::function<plan::Plan(std::optional<plan::TenantGrant> grant)>;
  // `model` is there under this key, and no other look at it is under way. What its last look has
  // begun is in the store.
  plan::Plan plan(const std::string& key, const Json& model, const Planner& planner);
  void forget(const std::string& key);
  // Another process has granted meanwhile: what models have is what they were granted.
  void begin();
  // Pods of a namespace as the API server has them. Of those whose model and revision are gone
  // nothing else says what they take.
  void learn(const std::vector<Json>& pods);

  struct Account {
    plan::TenantUsage usage;
    std::vector<std::string> may_grow;  // models that may have more groups than they were granted
  };
  Account account(const plan::TenantView& tenant);

 private:
  // What a budget reads of a model, read once for each version of it.
  struct Facts {
    std::uint64_t version = 0;
    std::string uid;
    WallTime created;
    bool going = false;
    std::shared_ptr<const api::Spec> spec;  // null: it is wrong
    std::string went_back_to;               // revision that is run in place of the spec's
  };
  struct Reserved {
    std::string uid;
    int groups = 0;      // that were granted
    plan::Groups begun;  // by the last look
    std::optional<WallTime> no_room_since;
  };

  // All with mutex_ held.
  std::optional<plan::TenantGrant> grant(const std::string& key, const Json& model);
  const Facts& facts_of(const std::string& key, const Json& model);
  const Facts* facts_of(const std::string& key);  // null: there is no such model
  // Those that are there, and those of which only pods are.
  std::vector<plan::BudgetModel> models_of(const plan::TenantView& tenant);
  // Groups of a model whose spec cannot be taken: what it was granted before, or else has.
  int kept(const std::string& key, const std::string& uid);
  // Of this model as it was when it was looked at last; nullptr: it was not.
  const Reserved* reserved_of(const std::string& key, const std::string& uid) const;
  // One that is to end on a node which does not answer takes none: its group is made elsewhere.
  bool takes_room(const plan::PodView& pod) const;
  void add_held(const Facts* facts, plan::BudgetModel& model);
  // nullptr: such a revision is not known.
  const plan::Amounts* demand_of(const std::string& key, const std::string& revision);
  // Kept revisions that the tenant does not let the model be.
  std::vector<std::string> not_allowed(const plan::TenantView& tenant, const std::string& key);

  const Store& store_;
  const TenantStore& tenants_;
  Clock& clock_;
  std::mutex mutex_;
  // By model.
  std::map<std::string, Facts> facts_;
  std::map<std::string, Reserved> reserved_;
  // What a group takes, by its revision; also of models that are gone, while pods of theirs stay.
  using Demands = std::map<std::string, std::map<std::string, plan::Amounts>>;
  Demands demands_;
  Demands learnt_;  // where no revision says it
};

}  // namespace dsm::runtime
