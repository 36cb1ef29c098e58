// What each model gets from its tenant's budget. A model's look asks for its grant, and what was
// granted stays reserved for it while its pods are being made, so that two looks at the same time
// cannot give the same room away twice. Thread-safe.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "operator/plan/budget.h"
#include "operator/plan/tenant.h"
#include "operator/runtime/tenant_store.h"

namespace dsm::runtime {

class TenantBudgets {
 public:
  // Both must outlive it.
  TenantBudgets(const Store& store, const TenantStore& tenants)
      : store_(store), tenants_(tenants) {}

  // nullopt: the model's namespace has no tenant.
  std::optional<plan::TenantGrant> grant(const std::string& key, const Json& model);
  void forget(const std::string& key);

  struct Account {
    plan::TenantUsage usage;
    std::vector<std::string> may_grow;  // models that may have more groups than they were granted
  };
  Account account(const plan::TenantView& tenant);

 private:
  using SpecPointer = std::shared_ptr<const api::Spec>;  // null: the spec is wrong
  struct KnownSpec {
    Json spec;
    SpecPointer parsed;
  };
  struct Reserved {
    std::string uid;
    int groups = 0;
  };

  // All with mutex_ held.
  SpecPointer spec_of(const std::string& key, const Json& model);
  std::vector<plan::BudgetModel> models_of(const plan::TenantView& tenant);
  int groups_held(const std::string& key, const std::string& uid) const;

  const Store& store_;
  const TenantStore& tenants_;
  std::mutex mutex_;
  std::map<std::string, KnownSpec> specs_;    // parsed once for each edit
  std::map<std::string, Reserved> reserved_;  // by model
};

}  // namespace dsm::runtime
