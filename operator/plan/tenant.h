// plan_tenant(): one look at one tenant -> everything that is to be done now. Pure, as plan() is.
//
// The runtime carries a TenantPlan out in this order, each step only when it holds the lease:
//   1. remove   DELETE with preconditions.uid. 404 and 409 mean done.
//   2. writes   kCreate: POST. kApply: server-side apply with force and metadata.uid, so that a
//               namespace is never made and another object of the name never changed.
//   3. status   server-side apply on /status. Left out: unchanged.
// A refused write does not stop the later ones; it is put into TenantObserved::failures, by the
// name that object_name() says.
//
// Everything that is made is owned by the tenant, so the garbage collector takes it when the tenant
// goes. What it cannot undo are the labels of the namespaces: a tenant that is not there gets a
// plan that takes them off, so no finalizer is needed, and removing the operator before its tenants
// blocks nobody.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "operator/plan/plan.h"
#include "operator/plan/tenancy.h"
#include "operator/plan/tenant_children.h"

namespace dsm::plan {

// What the models of a tenant are and hold.
struct TenantUsage {
  int models = 0;
  int waiting = 0;                               // run less than they want
  std::map<std::string, std::string> resources;  // of those in the budget
};

struct TenantObserved {
  std::string name;
  TenantPointer tenant;                    // null: it is not there
  std::vector<nlohmann::json> namespaces;  // those that it names and those that have its label
  // Whose the namespaces that it names are, where that is another tenant.
  std::map<std::string, std::string> owned_by_other;
  // What was made for it, by the labels, and what a POST was refused for because it has the name.
  std::vector<nlohmann::json> children;
  std::vector<WriteFailure> failures;
  std::vector<std::string> key_mistakes;  // sentences about entries of its Secrets
  TenantUsage usage;
  WallTime now;
  TenantConfig config;
};

struct TenantRemoval {
  std::string kind;
  std::string ns;
  std::string name;
  std::string uid;
};

struct TenantPlan {
  std::vector<TenantRemoval> remove;
  std::vector<ChildWrite> writes;
  std::optional<nlohmann::json> status;
  Millis requeue_after{0};

  bool quiet() const { return remove.empty() && writes.empty() && !status; }
};

// "namespace/name", or "/name" of what is in no namespace: how failures name an object.
std::string object_name(const nlohmann::json& object);

TenantPlan plan_tenant(const TenantObserved& observed);

}  // namespace dsm::plan
