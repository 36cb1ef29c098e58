// A model as a person looks at it: its status, its groups and their pods, put together from the
// objects of the cluster. Pure values; `dsmctl status` prints them.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/clock.h"
#include "operator/api/status.h"
#include "operator/plan/observed.h"

namespace dsm::ctl {

struct PodBranch {
  std::string name;
  std::string role;   // leader or worker
  std::string state;  // Ready, Running, Pending, Unschedulable, Terminating, CrashLoopBackOff, ...
  std::string message;  // why it is not ready, in the words of the cluster; may be empty
  std::string node;
  int restarts = 0;
};

struct GroupBranch {
  api::GroupStatus status;  // of a group that the status does not have yet: its name alone
  std::vector<PodBranch> pods;
};

struct ModelTree {
  std::string name;
  std::string ns;
  WallTime created;
  bool going = false;   // it is being deleted
  bool paused = false;  // spec.rollout.paused
  bool sleeps = false;  // spec.sleep
  int desired = 0;      // groups
  // metadata.generation; beyond status.observed_generation the status is not of this spec.
  long generation = 0;
  api::ModelStatus status;
  std::vector<GroupBranch> groups;  // by name
};

// `pods` may be those of other models, too.
ModelTree tree_of(const nlohmann::json& model, const std::vector<plan::PodView>& pods);

// For programs: {"name", "namespace", "status": {...}, "groups": [{..., "pods": [...]}], ...}.
nlohmann::json to_json(const ModelTree& tree);

}  // namespace dsm::ctl
