#include "operator/plan/drain.h"

#include <algorithm>
#include <array>
#include <string_view>

namespace dsm::plan {
namespace {

constexpr std::string_view kCordoned = "node.kubernetes.io/unschedulable";
constexpr std::string_view kStatePrefix = "node.kubernetes.io/";

// Taints after which the node ends within minutes, whether its pods have left or not.
//
// All others with NoSchedule are left for when a group serves elsewhere, also those of who waits
// for disruption budgets: karpenter.sh/disrupted (karpenter.sh/docs/concepts/disruption; the same
// taint for a spot interruption, so that cannot be told apart), ToBeDeletedByClusterAutoscaler (its
// FAQ: the node stays when a budget refuses for two minutes), and
// aws-node-termination-handler/rebalance-recommendation (a higher risk, at no certain time).
constexpr std::array<std::string_view, 7> kEndsSoon = {
    // github.com/aws/aws-node-termination-handler, configuration taintNode. A spot instance has two
    // minutes; for maintenance and the end of an instance in an autoscaling group the taint comes
    // nodeTerminationGracePeriod, two minutes, before.
    "aws-node-termination-handler/spot-itn", "aws-node-termination-handler/scheduled-maintenance",
    "aws-node-termination-handler/asg-lifecycle-termination",
    // cloud.google.com/kubernetes-engine/docs/concepts/spot-vms: 30 s. Nodes with GPUs get the same
    // taint before the maintenance of their host.
    "cloud.google.com/impending-node-termination",
    // learn.microsoft.com/azure/aks/node-auto-drain: the machine is preempted (30 s), moved or
    // deleted. The second is its earlier name.
    "remediator.kubernetes.azure.com/unschedulable", "remediator.aks.microsoft.com/unschedulable",
    // kubernetes.io/docs/reference/labels-annotations-taints: its machine has been switched off.
    "node.cloudprovider.kubernetes.io/shutdown"};

bool tolerates(const api::Toleration& toleration, const Taint& taint) {
  if (!toleration.effect.empty() && toleration.effect != taint.effect) return false;
  if (toleration.op == "Exists") return toleration.key.empty() || toleration.key == taint.key;
  return toleration.key == taint.key && toleration.value == taint.value;
}

// For good: a pod that tolerates NoExecute for a time only is evicted after it.
bool may_stay(const std::vector<api::Toleration>& tolerations, const Taint& taint) {
  return std::ranges::any_of(tolerations, [&](const api::Toleration& t) {
    return tolerates(t, taint) && !(taint.effect == "NoExecute" && t.seconds);
  });
}

}  // namespace

std::optional<Leaving> leaving(const NodeView& node,
                               const std::vector<api::Toleration>& tolerations) {
  std::optional<Leaving> found;
  const Taint cordon{std::string(kCordoned), "", "NoSchedule"};
  if (node.unschedulable && !may_stay(tolerations, cordon)) {
    found = Leaving{node.name, "is cordoned"};
  }
  for (const Taint& taint : node.taints) {
    if (taint.effect != "NoSchedule" && taint.effect != "NoExecute") continue;
    if (taint.key.starts_with(kStatePrefix) || may_stay(tolerations, taint)) continue;
    const bool urgent =
        taint.effect == "NoExecute" || std::ranges::find(kEndsSoon, taint.key) != kEndsSoon.end();
    if (found && (found->urgent || !urgent)) continue;
    found = Leaving{node.name, "has the taint " + taint.key + ":" + taint.effect, urgent};
  }
  return found;
}

std::optional<Leaving> leaving(const std::vector<const PodView*>& pods, const Observed& observed,
                               const std::vector<api::Toleration>& tolerations) {
  std::optional<Leaving> found;
  bool asked = false;
  for (const PodView* pod : pods) {
    if (pod == nullptr) continue;
    asked = asked || pod->drain;
    const bool ended = pod->phase == "Failed" || pod->phase == "Succeeded";
    if (pod->deletion || ended || pod->node.empty()) continue;
    const auto node = observed.nodes.find(pod->node);
    if (node == observed.nodes.end()) continue;
    auto here = leaving(node->second, tolerations);
    if (here && (!found || here->urgent)) found = std::move(here);
  }
  if (!found && asked) found = Leaving{"", "a drain is asked for"};
  return found;
}

bool node_lost(const Observed& observed, const std::string& node) {
  const auto it = observed.nodes.find(node);
  return it != observed.nodes.end() && !it->second.ready;
}

}  // namespace dsm::plan
