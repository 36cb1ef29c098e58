// Which groups stay, which go, and how many are made: the one decision of the operator, as a
// function from numbers and flags.
//
//   keep     the best groups of the wanted revision, at most `desired`
//   surplus  other groups of the wanted revision (scaled down): go
//   old      groups of other revisions: go one by one, when enough others are ready
//   leaving  groups of the wanted revision on a node that is being emptied, or that are asked to
//            go: go as the old ones do; on a node that is about to end, at once
//
// While the rollout is paused, groups of every revision are kept alike and none is old.
//
// Five complications:
// - Edits coalesce. There is no "rollout in progress": each look compares what is there with what
//   is wanted now. A group of a half-way revision never served, so it goes at once; after a revert
//   the groups that served are of the wanted revision again and simply stay.
// - Capacity. A new group may need the room of an old one. First a surge group is tried; when the
//   scheduler has found no node for kSurgePatience, or the API server has refused it twice (a
//   quota), or the tenant's budget has had no room for it as long, either an old group goes first
//   (max_unavailable > 0) or the surge group is taken away and the model says so. A group on a node
//   that is being emptied makes no room for pods when it goes, so it stays then; in a quota it
//   does.
// - Half a group. One of which some pods have found a node and others have not, or are refused, for
//   kPlacementPatience gives back what it holds and is tried again later: two such groups could
//   wait for each other for ever. One that holds nothing waits on, so that a cluster autoscaler
//   sees it.
// - A group of which nothing is left since all of its pods failed is made anew, later each time:
//   between the tries it stays as it is.
// - Nothing is remembered of what was decided. A group whose leader is being deleted is the worst
//   one to keep, so a drain that was begun goes on; when the number is raised again meanwhile, its
//   leader is made again instead and the other ranks keep their weights.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "operator/plan/groups.h"

namespace dsm::plan {

inline constexpr Seconds kSurgePatience{60};
inline constexpr Seconds kPlacementPatience{300};
inline constexpr int kNoLimit = 1'000'000;

struct RolloutInput {
  const std::vector<Group>& groups;
  std::string_view revision;  // wanted
  int desired = 1;
  int max_surge = 1;
  int max_unavailable = 0;
  bool paused = false;
  bool surge_waits = false;      // a surge group found no room a while ago; do not try again yet
  bool placement_waits = false;  // the same of a group that could not be placed whole
  bool may_replace = true;       // a group that has had its restarts may be replaced now
  bool may_renew = true;         // the same of one whose pods have all failed
  std::optional<Refusal> refused = {};  // of a new group, of which nothing could be made
  int room = kNoLimit;                  // new groups for which the tenant's budget has room
  WallTime now;
};

struct GoingGroup {
  std::size_t group;  // index into the groups
  std::string_view why;
  bool at_once = false;  // all pods in one go: nothing is served that could be drained
};

struct RolloutDecision {
  std::vector<std::size_t> keep;     // of the wanted revision
  std::vector<std::size_t> old;      // of other revisions, not going yet
  std::vector<std::size_t> leaving;  // of the wanted revision, not going yet
  std::vector<GoingGroup> going;
  int create = 0;                       // new groups
  bool lacks_room = false;              // one is missing, and the tenant's budget has no room
  bool no_room = false;                 // there is none for a surge group,
  std::string why_no_room;              // as was found out now; empty: earlier
  bool surge_refused = false;           // what lacks is not a node: a quota, or the like
  bool surge_failed = false;            // and one goes because of that, or is not made
  bool surge_pending = false;           // a surge group has found no node yet
  std::optional<std::size_t> replaced;  // it goes because it has had its restarts
  std::optional<std::size_t> released;  // it goes because it could not be placed whole
  std::optional<std::size_t> fallen;    // it goes because all of its pods have failed
};

RolloutDecision decide(const RolloutInput& input);

// A group that stays for now should go elsewhere.
bool any_leaving(const std::vector<Group>& groups, const RolloutDecision& decision);

}  // namespace dsm::plan
