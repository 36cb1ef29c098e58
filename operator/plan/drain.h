// Which groups should go elsewhere: those on nodes that are being emptied, before somebody ends
// them, and those that somebody asks to go. Private to operator/plan.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "operator/api/spec.h"
#include "operator/plan/observed.h"

namespace dsm::plan {

// Why a group should go elsewhere.
struct Leaving {
  std::string node;     // empty: the group itself is asked to go, and its node takes pods
  std::string why;      // "is cordoned", "has the taint ..."
  bool urgent = false;  // the node is about to end: nothing is waited for

  bool asked() const { return node.empty(); }
  std::string sentence() const { return asked() ? why : "node " + node + " " + why; }
};

// Absent: pods with these tolerations may stay.
//
// A cordon and every taint with NoSchedule or NoExecute that the pods do not tolerate ask them to
// leave. Taints of Kubernetes' own under node.kubernetes.io/ speak of the node's state, which
// passes (pressure, network), or of its loss, which is not a drain; they do not.
std::optional<Leaving> leaving(const NodeView& node,
                               const std::vector<api::Toleration>& tolerations);

// The same of a group by its pods, by index; nullptr: there is none. One pod is reason enough for
// the whole group. What is being emptied goes before what somebody asks for, since its nodes take
// no other pods.
std::optional<Leaving> leaving(const std::vector<const PodView*>& pods, const Observed& observed,
                               const std::vector<api::Toleration>& tolerations);

// The node is known not to answer, so a pod on it that is being deleted is not ended by its
// kubelet.
bool node_lost(const Observed& observed, const std::string& node);

}  // namespace dsm::plan
