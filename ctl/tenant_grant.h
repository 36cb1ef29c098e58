// What the tenant of a model's namespace says about the model: the same rules as the operator's, on
// what a user may list. What the operator has promised and not made yet is not seen. Pure.
#pragma once

#include <nlohmann/json.hpp>
#include <vector>

#include "base/clock.h"
#include "operator/plan/observed.h"
#include "operator/plan/tenancy.h"

namespace dsm::ctl {

// All of the tenant's namespaces.
struct TenantWorld {
  plan::TenantPointer tenant;
  std::vector<nlohmann::json> models;
  std::vector<nlohmann::json> pods;
  std::vector<nlohmann::json> revisions;
};

// `model` as it is or would be, in the place of the one of its name in the world.
plan::TenantGrant grant_of(const TenantWorld& world, const nlohmann::json& model, WallTime now);

}  // namespace dsm::ctl
