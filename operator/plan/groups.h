// The pods of a model seen as groups, and what is the matter with each group. A group is the unit
// of every decision: it is created, made ready, mended, drained and replaced whole.
//
// A pod counts only when it is the model's (owner) and has the name that its labels promise; any
// other pod only makes its name unusable. Groups point into the Observed and the status they were
// made from.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "operator/api/status.h"
#include "operator/plan/cause.h"
#include "operator/plan/children.h"
#include "operator/plan/drain.h"
#include "operator/plan/observed.h"
#include "operator/plan/recovery.h"
#include "operator/plan/refusals.h"

namespace dsm::plan {

struct Group {
  std::string name;
  std::string revision;
  int number = 0;
  int want = 0;        // pods that it should have; 0 when its revision is not known any more
  bool known = false;  // its revision is known, so that it can be mended
  std::vector<const PodView*> pods;  // by index in the group; nullptr: there is none

  bool ready = false;         // every pod is there, ready and stays, and the leader says no other
  bool stands = false;        // ready, or asleep where the spec says so
  bool unheard = false;       // it may serve or sleep: its leader has told the operator nothing yet
  bool rests = false;         // it sleeps, or wakes
  bool ended = false;         // no pod is left that stays: it cannot be mended
  bool fallen = false;        // and nobody asked for that: see failed() and lost_gpu()
  bool leader_going = false;  // its leader is being deleted or is gone
  bool stuck = false;         // a pod that is deleted does not end: its node does not answer
  bool served = false;        // it has been ready
  bool placed = false;        // some of its pods have a node, so that it holds resources
  bool bound_together = false;  // its pods name a PodGroup
  long work = 0;                // requests that its leader computes or holds
  RestartCount restarts;
  std::vector<std::string> failed_nodes;  // where it was spent, or that do not answer
  std::optional<Leaving> leaving;         // it should go elsewhere
  std::optional<WallTime> unschedulable_since;
  std::optional<Refusal> refused;  // a pod that it lacks is
  // Since when it has not come whole, for want of a node or of leave to make a pod.
  std::optional<WallTime> incomplete_since;
  // Since when some of its pods have had nodes for nothing: absent when it is whole or holds none.
  std::optional<WallTime> half_since;
  std::optional<Cause> cause;                   // absent when it is ready
  const LeaderStatus* leader_status = nullptr;  // nullptr: none, or stale
  const api::GroupStatus* before = nullptr;     // what was said of it last; nullptr: it is new

  const PodView* leader() const { return pods.empty() ? nullptr : pods.front(); }
};

// A pod that is still there so long after its time is up is on a node that does not answer.
inline constexpr Seconds kStuckAfter{60};
// A pod whose volumes and network are not there so long after it got its node waits for them.
inline constexpr Seconds kVolumePatience{60};

// A leader whose pod is ready for so long and that says nothing cannot be reached.
inline constexpr Seconds kLeaderPatience{15};

// A pod that is deleted and will not be ended by its kubelet.
bool pod_stuck(const PodView& pod, const Observed& observed);
// The same where it is known whether the pod's node is lost.
bool pod_stuck(const PodView& pod, bool node_lost, WallTime now);

struct GroupContext {
  std::string_view model;
  std::string_view uid;
  const api::ModelStatus& before;                    // the status as it was written last
  const std::map<std::string, Revision>& revisions;  // those that are known
  RecoveryRule recovery;
  bool sleeps = false;  // spec.sleep
};

// In the order of revision and number.
std::vector<Group> groups_of(const Observed& observed, const GroupContext& context);

// True when a pod of that name exists, whoever made it and whether it goes or stays.
bool pod_name_taken(const Observed& observed, std::string_view name);

}  // namespace dsm::plan
