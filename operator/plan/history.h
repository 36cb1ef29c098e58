// The revisions of a model that no group uses any more, kept for going back to them. Private to
// operator/plan.
//
// A revision that was rolled out whole is marked, and numbered anew whenever that happens again: so
// numbers say in which order revisions have served, and one that was never whole is the first to be
// forgotten.
#pragma once

#include <vector>

#include "operator/plan/groups.h"
#include "operator/plan/look.h"
#include "operator/plan/plan.h"

namespace dsm::plan {

void plan_history(const Look& look, const std::vector<Group>& groups, Plan& plan);

}  // namespace dsm::plan
