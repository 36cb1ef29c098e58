// Which groups stay, which go, and how many are made: the one decision of the operator, as a
// function from numbers and flags.
//
//   keep     the best groups of the wanted revision, at most `desired`
//   surplus  other groups of the wanted revision (scaled down): go
//   old      groups of other revisions: go one by one, when enough others are ready
//
// Three complications:
// - Edits coalesce. There is no "rollout in progress": each look compares what is there with what
//   is wanted now. A group of a half-way revision never served, so it goes at once; after a revert
//   the groups that served are of the wanted revision again and simply stay.
// - Capacity. A new group may need the room of an old one. First a surge group is tried; when the
//   scheduler has found no node for kSurgePatience, either an old group goes first
//   (max_unavailable > 0) or the surge group is taken away and the model says so.
// - Nothing is remembered of what was decided. A group whose leader is being deleted is the worst
//   one to keep, so a drain that was begun goes on; when the number is raised again meanwhile, its
//   leader is made again instead and the other ranks keep their weights.
#pragma once

#include <string_view>
#include <vector>

#include "operator/plan/groups.h"

namespace dsm::plan {

inline constexpr Seconds kSurgePatience{60};

struct RolloutInput {
  const std::vector<Group>& groups;
  std::string_view revision;  // wanted
  int desired = 1;
  int max_surge = 1;
  int max_unavailable = 0;
  bool surge_waits = false;  // a surge group found no room a while ago; do not try again yet
  bool may_replace = true;   // a crash-looping group may be replaced now
  WallTime now;
};

struct GoingGroup {
  std::size_t group;  // index into the groups
  std::string_view why;
  bool at_once = false;  // all pods in one go: nothing is served that could be drained
};

struct RolloutDecision {
  std::vector<std::size_t> keep;  // of the wanted revision
  std::vector<std::size_t> old;   // of other revisions, not going yet
  std::vector<GoingGroup> going;
  int create = 0;              // new groups of the wanted revision
  bool surge_failed = false;   // a surge group goes because no node has room for it
  bool replaced = false;       // a group goes because it crash-loops
  bool surge_pending = false;  // a surge group has found no node yet
};

RolloutDecision decide(const RolloutInput& input);

}  // namespace dsm::plan
