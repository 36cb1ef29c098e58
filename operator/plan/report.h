// What is said about a look: the model's status and the events of its changes. Private to
// operator/plan.
#pragma once

#include <vector>

#include "operator/plan/actions.h"

namespace dsm::plan {

struct Finding {
  const Look& look;
  const std::vector<Group>& groups;
  const RolloutDecision& decision;
  const Obstacles& obstacles;
  std::optional<api::Backoff> backoff;
  const std::vector<api::AvoidedNode>& avoided;
};

api::ModelStatus report(const Finding& finding);

// Whole-group replacements without success after which the model is Stalled.
inline constexpr int kStalledAfterReplacements = 3;
// The same of groups whose pods all failed. They are made anew sooner: this many tries take five
// minutes, in which a node's devices are there again after a reboot.
inline constexpr int kStalledAfterRenewals = 6;

}  // namespace dsm::plan
