#include "operator/plan/drain.h"

#include <algorithm>
#include <array>
#include <string_view>

namespace dsm::plan {
namespace {

constexpr std::string_view kCordoned = "node.kubernetes.io/unschedulable";
constexpr std::string_view kStatePrefix = "node.kubernetes.io/";

// Minutes or less are left: AWS says so two minutes before it takes a spot instance, Google 30 s.
constexpr std::array<std::string_view, 2> kEndsSoon = {
    "aws-node-termination-handler/spot-itn", "cloud.google.com/impending-node-termination"};

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

bool node_lost(const Observed& observed, const std::string& node) {
  const auto it = observed.nodes.find(node);
  return it != observed.nodes.end() && !it->second.ready;
}

}  // namespace dsm::plan
