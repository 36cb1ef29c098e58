// What is to be written: children, pods made, pods removed. Private to operator/plan.
#pragma once

#include <string>
#include <vector>

#include "operator/plan/groups.h"
#include "operator/plan/look.h"
#include "operator/plan/plan.h"
#include "operator/plan/rollout.h"

namespace dsm::plan {

// A group that is wanted and of which no pod could be made yet.
struct RefusedGroup {
  std::string name;
  std::string revision;
  Cause cause;
};

// What stands in the way of writing, for the status.
struct Obstacles {
  std::vector<std::string> conflicts;  // sentences about names that somebody else has
  std::optional<Cause> refused;        // the first child that the API server refuses,
  std::optional<Cause> refused_pod;    // and the first pod
  std::vector<RefusedGroup> not_made;
  bool no_pods = false;  // pods would not work; none are made
};

// Children that are missing or differ go into `plan`; revisions and disruption budgets that nothing
// uses are removed. PodGroups go with the pods.
Obstacles plan_children(const Look& look, const std::vector<Group>& groups, Plan& plan);

struct PodsToMake {
  const Look& look;
  const std::vector<Group>& groups;
  const RolloutDecision& decision;
  const std::vector<api::AvoidedNode>& avoided;
};

// Removals and new pods for a decision, with their events and what binds them together.
void plan_pods(const PodsToMake& make, Obstacles& obstacles, Plan& plan);

// Earlier of the two waits; zero means none.
void look_again_in(Plan& plan, std::chrono::nanoseconds wait);

}  // namespace dsm::plan
