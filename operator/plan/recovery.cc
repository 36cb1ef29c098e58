#include "operator/plan/recovery.h"

#include <algorithm>
#include <array>
#include <set>
#include <string_view>

#include "operator/api/reasons.h"
#include "operator/plan/groups.h"

namespace dsm::plan {
namespace {

// More would make every new pod's affinity long; the API server's bound is far above.
constexpr std::size_t kMostAvoided = 32;

constexpr Seconds kMendFirstWait{10};
constexpr Seconds kMendLongestWait{300};

// What a kubelet gives as a pod's reason (kubernetes/pkg/kubelet). Of an orderly shutdown:
constexpr std::array<std::string_view, 2> kShutDown = {"Terminated", "Shutdown"};
// and when it does not take one, beside OutOf<resource>.
constexpr std::array<std::string_view, 5> kNotTaken = {"UnexpectedAdmissionError", "NodeAffinity",
                                                       "TopologyAffinityError", "NodeShutdown",
                                                       "InvalidNodeInfo"};

bool one_of(std::string_view text, const auto& list) {
  return std::ranges::find(list, text) != list.end();
}

std::string lost_begin(const PodView& pod) {
  return "pod " + pod.name + " on node " + pod.node + " is made again, to have another GPU: ";
}

bool said_lost(const PodView& pod, const api::GroupStatus* before) {
  return before != nullptr && before->reason == api::kDeviceLost &&
         before->message.contains(lost_begin(pod));
}

}  // namespace

bool failed(const PodView& pod) {
  if (pod.phase != "Failed" && pod.phase != "Succeeded") return false;
  // Since Kubernetes 1.27 a deleted pod has ended, too, before it is gone; without a reason.
  if (pod.deletion && pod.status_reason.empty()) return false;
  return !one_of(pod.status_reason, kShutDown);
}

bool refused_by_node(const PodView& pod) {
  return pod.phase == "Failed" &&
         (pod.status_reason.starts_with("OutOf") || one_of(pod.status_reason, kNotTaken));
}

bool lost_gpu(const PodView& pod, const api::GroupStatus* before) {
  if (pod.ready || pod.deletion) return false;
  return pod.exit_why == api::kDeviceLost || (pod.restarts > 0 && said_lost(pod, before));
}

std::string lost_gpu_words(const PodView& pod, const api::GroupStatus* before) {
  const std::string begin = lost_begin(pod);
  if (pod.exit_why == api::kDeviceLost) return begin + pod.exit_message;
  return before->message.substr(before->message.find(begin));
}

Seconds mend_wait(int recent_restarts) {
  if (recent_restarts <= 1) return Seconds(0);
  return std::min(kMendLongestWait, kMendFirstWait * (1 << std::min(recent_restarts - 2, 8)));
}

RecoveryRule recovery_rule(const api::Recovery& recovery) {
  RecoveryRule rule;
  rule.max_restarts = recovery.max_restarts;
  rule.window = api::parse_duration(recovery.window).value_or(rule.window);
  return rule;
}

RestartCount count_restarts(const std::vector<const PodView*>& pods, const api::GroupStatus* before,
                            const RecoveryRule& rule, WallTime now) {
  RestartCount count;
  bool all_run = true;
  bool looping = false;
  bool waits_for_gpu = false;
  WallTime last_start{};
  for (const PodView* pod : pods) {
    all_run = all_run && pod != nullptr && pod->running && pod->started && !failed(*pod);
    if (pod == nullptr) continue;
    // The kubelet may have started the container again already.
    const bool lost = lost_gpu(*pod, before);
    count.all += lost ? std::max(pod->restarts, 1) : pod->restarts;
    waits_for_gpu = waits_for_gpu || (lost && said_lost(*pod, before));
    count.all += failed(*pod) ? 1 : 0;
    looping = looping || pod->waiting_reason == "CrashLoopBackOff";
    if (pod->started) last_start = std::max(last_start, *pod->started);
  }
  // A pod that was made again begins at zero. What a container tries on a GPU that is lost, until
  // its pod goes, says nothing new.
  const bool nothing_new = waits_for_gpu || (before != nullptr && count.all <= before->restarts);
  count.recent = before == nullptr
                     ? count.all
                     : before->recent_restarts + (nothing_new ? 0 : count.all - before->restarts);
  if (all_run) count.stable_at = last_start + rule.window;
  if (count.stable_at && *count.stable_at <= now) count.recent = 0;
  // A container that waits to be restarted has ended once more than it was restarted.
  count.spent = count.recent + (looping ? 1 : 0) > rule.max_restarts;
  return count;
}

std::vector<api::AvoidedNode> avoided_nodes(const std::vector<api::AvoidedNode>& before,
                                            const std::vector<Group>& groups, WallTime now) {
  std::vector<api::AvoidedNode> avoided;
  std::set<std::string> failed;
  for (const Group& group : groups) {
    failed.insert(group.failed_nodes.begin(), group.failed_nodes.end());
  }
  for (const api::AvoidedNode& node : before) {
    failed.erase(node.name);  // its time is not prolonged: it would be written again and again
    if (from_rfc3339(node.until) > now) avoided.push_back(node);
  }
  for (const std::string& node : failed) {
    avoided.push_back({node, to_rfc3339(now + kAvoidNodeFor)});
  }
  if (avoided.size() > kMostAvoided) {
    avoided.erase(avoided.begin(), avoided.end() - static_cast<std::ptrdiff_t>(kMostAvoided));
  }
  return avoided;
}

}  // namespace dsm::plan
