// One PodDisruptionBudget for each group, so that an eviction (kubectl drain) takes no pod of a
// group that works: a group without one of its ranks answers nothing. The operator sees the cordon
// that comes before, moves the group, and then there is nothing left to evict. A group that does
// not work may be evicted at any time, so one that has never worked needs no budget yet: the
// disruption controller would write the budget's status for each of its pods that becomes ready.
// Private to operator/plan.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "operator/plan/groups.h"
#include "operator/plan/look.h"
#include "operator/plan/plan.h"

namespace dsm::plan {

inline constexpr std::string_view kDisruptionBudget = "PodDisruptionBudget";

// Named like the group. minAvailable is a number, because for a percentage the disruption
// controller would need a scale subresource that says how many pods belong together.
nlohmann::json disruption_budget_json(const Owner& owner, const Group& group);

// Those of all groups that have worked; none when nodes are not watched, because nobody would then
// move a group away and the eviction would wait for ever.
std::vector<nlohmann::json> wanted_budgets(const Look& look, const std::vector<Group>& groups);

// Removes our own budgets whose group is not there any more.
void remove_unused_budgets(const Look& look, const std::vector<Group>& groups, Plan& plan);

}  // namespace dsm::plan
