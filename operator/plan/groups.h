// The pods of a model seen as groups, and what is the matter with each group. A group is the unit
// of every decision: it is created, made ready, mended, drained and replaced whole.
//
// A pod counts only when it is the model's (owner) and has the name that its labels promise; any
// other pod only makes its name unusable. Groups point into the Observed they were made from.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "operator/api/status.h"
#include "operator/plan/observed.h"

namespace dsm::plan {

// Why a group is as it is. A hard cause does not pass by waiting a little.
struct Cause {
  std::string phase;  // of api::GroupStatus
  std::string_view reason;
  std::string message;
  bool hard = false;
};

struct Group {
  std::string name;
  std::string revision;
  int number = 0;
  int want = 0;        // pods that it should have; 0 when its revision is not known any more
  bool known = false;  // its revision is known, so that it can be mended
  std::vector<const PodView*> pods;  // by index in the group; nullptr: there is none

  bool ready = false;          // every pod is there, ready and stays
  bool ended = false;          // no pod is left that stays: it cannot be mended
  bool leader_going = false;   // its leader is being deleted or is gone
  bool stuck = false;          // a pod should have been gone for a minute: its node does not answer
  bool served = false;         // it was ready at the last look, or is coming back from that
  long work = 0;               // requests that its leader computes or holds
  int restarts = 0;            // of all containers
  bool crash_looping = false;  // past the bound at which it is replaced
  std::optional<WallTime> unschedulable_since;
  std::optional<Cause> cause;                   // absent when it is ready
  const LeaderStatus* leader_status = nullptr;  // nullptr: none, or stale

  const PodView* leader() const { return pods.empty() ? nullptr : pods.front(); }
};

// Restarts of one container after which its group is replaced whole.
inline constexpr int kRestartBound = 5;
// A pod that is still there so long after its time is up is on a node that does not answer.
inline constexpr Seconds kStuckAfter{60};

struct GroupContext {
  std::string_view model;
  std::string_view uid;
  const api::ModelStatus& before;                       // the status as it was written last
  const std::map<std::string, int>& pods_per_revision;  // of the revisions that are known
};

// In the order of revision and number.
std::vector<Group> groups_of(const Observed& observed, const GroupContext& context);

// True when a pod of that name exists, whoever made it and whether it goes or stays.
bool pod_name_taken(const Observed& observed, std::string_view name);

}  // namespace dsm::plan
