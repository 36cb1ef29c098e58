// How many restarts a group has had, when it is given up, and which nodes its successor avoids.
//
// Containers are restarted by the kubelet, later each time. A pod that has failed as a whole is
// made again by us, later each time, and counts as a restart. Restarts add up until all containers
// of the group have run for spec.recovery.window; more than spec.recovery.maxRestarts spend it, and
// the whole group is replaced. What has to be remembered between two looks is in the status:
// the sum, the number of restarts that it was made from, and the nodes. Private to operator/plan.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "operator/api/spec.h"
#include "operator/api/status.h"
#include "operator/plan/observed.h"

namespace dsm::plan {

struct RecoveryRule {
  int max_restarts = 5;
  Seconds window{600};
};
RecoveryRule recovery_rule(const api::Recovery& recovery);

// A pod that ended without anybody having deleted it: its kubelet did not take it, or evicted it. A
// node that is shut down ends its pods, too; that is no fault of theirs.
bool failed(const PodView& pod);

// The kubelet did not take the pod, although the scheduler thought that it would: a device that is
// not there yet after a reboot, a node that has changed meanwhile.
bool refused_by_node(const PodView& pod);

// The GPU of a rank is lost, as its container said last, and nothing but a person or a restart of
// the node mends it. A container that starts again has the same GPU; a pod that is made again has
// another one, because the device plugin gives out no GPU that it knows to be lost. `before` is
// what was said of its group last, nullptr when that is new: until the pod goes, its container may
// start again, and ends with other words or cannot be made.
bool lost_gpu(const PodView& pod, const api::GroupStatus* before);
// What is the matter with such a pod, with its container's words of the loss.
std::string lost_gpu_words(const PodView& pod, const api::GroupStatus* before);

// How long a pod that has failed stays, counted from its making, before it is made again.
Seconds mend_wait(int recent_restarts);

struct RestartCount {
  int all = 0;         // as the kubelets count them, and pods that have failed or lost a GPU
  int recent = 0;      // since the group was last stable
  bool spent = false;  // more than are put up with
  std::optional<WallTime> stable_at;  // all containers run, and have run for the window then
};

// `pods` may have holes; `before` is what was said of the group last, nullptr when it is new.
RestartCount count_restarts(const std::vector<const PodView*>& pods, const api::GroupStatus* before,
                            const RecoveryRule& rule, WallTime now);

struct Group;

// Nodes that new pods should rather not go to: those known before for as long as was said, and
// those on which a group was spent or a GPU is lost, or that do not answer.
std::vector<api::AvoidedNode> avoided_nodes(const std::vector<api::AvoidedNode>& before,
                                            const std::vector<Group>& groups, WallTime now);

inline constexpr Seconds kAvoidNodeFor{3600};

}  // namespace dsm::plan
