// Which nodes are being emptied, and so which groups should go elsewhere before somebody ends them.
// Private to operator/plan.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "operator/api/spec.h"
#include "operator/plan/observed.h"

namespace dsm::plan {

// Why pods should leave a node.
struct Leaving {
  std::string node;
  std::string why;      // "is cordoned", "has the taint ..."
  bool urgent = false;  // it is about to end: nothing is waited for
};

// Absent: pods with these tolerations may stay.
//
// A cordon and every taint with NoSchedule or NoExecute that the pods do not tolerate ask them to
// leave. Taints of Kubernetes' own under node.kubernetes.io/ speak of the node's state, which
// passes (pressure, network), or of its loss, which is not a drain; they do not.
std::optional<Leaving> leaving(const NodeView& node,
                               const std::vector<api::Toleration>& tolerations);

// The node is known not to answer, so a pod on it that is being deleted is not ended by its
// kubelet.
bool node_lost(const Observed& observed, const std::string& node);

}  // namespace dsm::plan
