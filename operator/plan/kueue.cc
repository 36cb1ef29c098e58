#include "operator/plan/kueue.h"

#include <algorithm>

#include "operator/api/names.h"
#include "operator/plan/json_part.h"

namespace dsm::plan {
namespace {

using nlohmann::json;

constexpr const char* kGroupLabel = "kueue.x-k8s.io/pod-group-name";
constexpr const char* kCountNote = "kueue.x-k8s.io/pod-group-total-count";
// A group that serves is never finished, and a pod that has ended is to come again.
constexpr const char* kServingNote = "kueue.x-k8s.io/pod-group-serving";
// Kueue takes pods of equal roles as interchangeable. It would compute the role from ports,
// affinity and more, by which a leader differs from the others, and a pod that is made again from
// the one before it. What counts here, the resources, is equal for all.
constexpr const char* kRoleNote = "kueue.x-k8s.io/role-hash";
constexpr const char* kRole = "main";

bool never_runs_again(const PodView& pod) {
  return pod.node.empty() || pod.phase == "Failed" || pod.phase == "Succeeded";
}

}  // namespace

void join_queue(const std::string& queue, const std::string& group, int pods, json& metadata) {
  if (queue.empty()) return;
  metadata["labels"][std::string(kQueueLabel)] = queue;
  metadata["labels"][kGroupLabel] = group;
  metadata["annotations"][kCountNote] = std::to_string(pods);
  metadata["annotations"][kServingNote] = "true";
  metadata["annotations"][kRoleNote] = kRole;
}

std::string waiting_words(const json& workload) {
  const json conditions = part(workload, "/status/conditions");
  if (!conditions.is_array()) return {};
  // Quota comes first, then the checks of admission, if there are any.
  for (const char* type : {"QuotaReserved", "Admitted"}) {
    for (const json& condition : conditions) {
      if (text(part(condition, "/type")) == type && text(part(condition, "/status")) == "False") {
        return text(part(condition, "/message"));
      }
    }
  }
  return {};
}

std::vector<std::string> groups_in_queue(const std::vector<PodView>& pods) {
  std::vector<std::string> groups;
  for (const PodView& pod : pods) {
    if (pod.gate != kQueueGate || pod.deletion) continue;
    const std::string group = api::group_of_pod(pod.name);
    if (std::ranges::find(groups, group) == groups.end()) groups.push_back(group);
  }
  return groups;
}

std::vector<Release> releases(const std::vector<PodView>& pods) {
  std::vector<Release> out;
  for (const PodView& pod : pods) {
    if (pod.owner_uid.empty() || !pod.queued || !pod.deletion || !never_runs_again(pod)) continue;
    out.push_back({pod.name, pod.uid, std::string(kQueueFinalizer)});
  }
  return out;
}

}  // namespace dsm::plan
