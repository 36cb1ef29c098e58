#include "operator/plan/groups.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "operator/api/names.h"
#include "operator/api/reasons.h"
#include "operator/plan/accelerator.h"
#include "operator/plan/coscheduling.h"
#include "operator/plan/sleep.h"

namespace dsm::plan {
namespace {

bool ended(const PodView& pod) {
  return pod.phase == "Failed" || pod.phase == "Succeeded";
}

bool stays(const PodView* pod, const api::GroupStatus* before) {
  return pod != nullptr && !pod->deletion && !ended(*pod) && !lost_gpu(*pod, before);
}

bool one_of(std::string_view text, std::initializer_list<std::string_view> list) {
  return std::ranges::find(list, text) != list.end();
}

std::string how_it_ended(const PodView& pod) {
  std::string text = "it ended last with exit code " + std::to_string(pod.exit_code);
  if (!pod.exit_reason.empty()) text += " (" + pod.exit_reason + ")";
  if (!pod.exit_message.empty()) text += ": " + pod.exit_message;
  return text;
}

// A worker that knows what is wrong says it; of another one only is known that it keeps ending.
std::string_view why_it_ended(const PodView& pod) {
  return pod.exit_why.empty() ? api::kCrashLoop : pod.exit_why;
}

// What the scheduler waits for, by its own words ("0/3 nodes are available: 3 Insufficient cpu.").
std::string_view scheduling_reason(std::string_view words) {
  if (words.contains("Insufficient nvidia.com/") || words.contains("Insufficient amd.com/")) {
    return api::kWaitingForGPU;
  }
  if (words.contains("persistentvolumeclaim") || words.contains("PersistentVolume") ||
      words.contains("volume node affinity")) {
    return api::kWaitingForVolume;
  }
  if (words.contains("Insufficient cpu")) return api::kWaitingForCPU;
  if (words.contains("Insufficient memory")) return api::kWaitingForMemory;
  return api::kUnschedulable;
}

Cause scheduling_cause(const PodView& pod) {
  return {"Pending", scheduling_reason(pod.unschedulable_message),
          "no node can take pod " + pod.name + ": " + pod.unschedulable_message, true};
}

// It waits for whoever put the gate on it: Kueue, or another controller of admission.
Cause gate_cause(const PodView& pod, const Observed& observed) {
  const auto said = observed.queue_words.find(api::group_of_pod(pod.name));
  const std::string words = said == observed.queue_words.end() ? "" : ": " + said->second;
  return {"Pending", api::kWaitingForAdmission,
          "pod " + pod.name + " waits to be admitted by " + pod.gate + words, true};
}

// What is the matter with one pod that is there; nothing when it is only on its way.
std::optional<Cause> pod_cause(const PodView& pod, const Observed& observed,
                               const api::GroupStatus* before) {
  const std::string name = "pod " + pod.name;
  if (pod.deletion) {
    if (pod_stuck(pod, observed)) {
      return Cause{"Failed", api::kNodeLost,
                   name + " does not end: node " + pod.node +
                       " does not answer. Its group is made again elsewhere; the pod goes when the "
                       "node comes back or is deleted",
                   true};
    }
    return Cause{"Pending", api::kPodLost, name + " is being deleted; it is made again", true};
  }
  if (ended(pod)) {
    const std::string why = pod.status_reason.empty()
                                ? how_it_ended(pod)
                                : pod.status_reason + ": " + pod.status_message;
    return Cause{"Pending", api::kPodLost, name + " has ended (" + why + "); it is made again",
                 true};
  }
  if (lost_gpu(pod, before)) {
    return Cause{"Starting", api::kDeviceLost, lost_gpu_words(pod, before), true};
  }
  if (!pod.gate.empty()) return gate_cause(pod, observed);
  if (pod.unschedulable_since) return scheduling_cause(pod);
  if (!pod.sandboxed && !pod.running && pod.scheduled &&
      *pod.scheduled + kVolumePatience <= observed.now) {
    return Cause{"Starting", api::kWaitingForVolume,
                 name + " still has no volumes or no network on node " + pod.node +
                     "; kubectl describe pod " + pod.name + " says which is missing",
                 true};
  }
  if (one_of(pod.waiting_reason, {"ErrImagePull", "ImagePullBackOff", "InvalidImageName",
                                  "ErrImageNeverPull", "RegistryUnavailable"})) {
    return Cause{"Starting", api::kImagePull,
                 name + " cannot get its image: " + pod.waiting_reason + ": " + pod.waiting_message,
                 true};
  }
  if (one_of(pod.waiting_reason,
             {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})) {
    return Cause{
        "Starting", api::kContainerConfig,
        name + " cannot start its container: " + pod.waiting_reason + ": " + pod.waiting_message,
        true};
  }
  const bool looping = pod.waiting_reason == "CrashLoopBackOff";
  if (!pod.ready && pod.exit_reason == "OOMKilled") {
    return Cause{"Starting", api::kOOMKilled,
                 name + " needed more memory than it may have and was killed (" +
                     std::to_string(pod.restarts) +
                     " restarts); raise spec.template.resources.limits.memory",
                 true};
  }
  if (looping || (!pod.ready && !pod.running && pod.exit_code != 0)) {
    return Cause{
        "Starting", why_it_ended(pod),
        name + " has restarted " + std::to_string(pod.restarts) + " times; " + how_it_ended(pod),
        true};
  }
  return std::nullopt;
}

std::string bytes_text(long bytes) {
  constexpr std::array<const char*, 5> kUnits = {"B", "kB", "MB", "GB", "TB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1000 && unit + 1 < kUnits.size()) {
    value /= 1000;
    ++unit;
  }
  const long tenths = std::lround(value * 10);
  return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + " " + kUnits[unit];
}

// What the leader says of itself.
std::optional<Cause> leader_cause(const LeaderStatus& status) {
  if (status.phase == "Failed") {
    const auto known = std::ranges::find(api::kWorkerReasons, status.reason);
    if (known != api::kWorkerReasons.end()) {
      return Cause{"Failed", *known, "the leader says: " + status.message, true};
    }
    const std::string& why = status.last_error.empty() ? status.message : status.last_error;
    return Cause{"Failed", api::kWorkerFailed, "the leader has failed: " + why, true};
  }
  if (status.phase == "Loading") {
    return Cause{"Loading", api::kLoadingWeights,
                 "weights: " + bytes_text(status.loaded_bytes) + " of " +
                     bytes_text(status.total_bytes) + " loaded",
                 false};
  }
  if (status.phase == "Rendezvous") {
    std::string words =
        status.message.empty() ? "the leader waits for the other ranks" : status.message;
    // Else a network on which they never meet has no name.
    if (!status.last_error.empty()) words += "; the last time: " + status.last_error;
    return Cause{"Starting", api::kRendezvous, std::move(words), false};
  }
  if (auto asleep = sleep_cause(status)) return asleep;
  if (status.phase == "Draining") {
    return Cause{"Draining", api::kDraining, "the leader finishes its requests and restarts",
                 false};
  }
  return std::nullopt;
}

// Of a group that is bound together or not at all, some pods wait only for another one, and that
// one's words say for what.
Cause cause_of_waiting(const Group& group, Cause first) {
  for (const PodView* pod : group.pods) {
    if (pod == nullptr || pod->deletion || !pod->unschedulable_since) continue;
    if (!waits_for_another(pod->unschedulable_message)) return scheduling_cause(*pod);
  }
  return first;
}

std::optional<Cause> diagnose(const Group& group, const Observed& observed) {
  if (group.ready) return std::nullopt;
  for (const PodView* pod : group.pods) {
    if (pod == nullptr) continue;
    auto cause = pod_cause(*pod, observed, group.before);
    if (!cause) continue;
    const bool waits = pod->unschedulable_since && waits_for_another(pod->unschedulable_message);
    return waits ? cause_of_waiting(group, *std::move(cause)) : cause;
  }
  std::string missing;
  std::string starting;
  bool some = false;
  for (std::size_t i = 0; i < group.pods.size(); ++i) {
    const PodView* pod = group.pods[i];
    some = some || pod != nullptr;
    if (pod == nullptr)
      missing += (missing.empty() ? "" : ", ") + group.name + "-" + std::to_string(i);
    if (pod != nullptr && !pod->running) starting += (starting.empty() ? "" : ", ") + pod->name;
  }
  if (group.refused) return group.refused->cause;
  if (!missing.empty() && group.served) {
    return Cause{"Pending", api::kPodLost, "pod " + missing + " is gone and is made again", true};
  }
  if (!missing.empty()) {
    return Cause{"Pending", api::kCreating, "pod " + missing + " is to be made", false};
  }
  if (!starting.empty()) {
    return Cause{"Starting", api::kStarting, "the container starts in " + starting, false};
  }
  const PodView* leader = group.leader();
  const bool silent = group.leader_status == nullptr && leader != nullptr && leader->ready_at;
  if (!silent) {
    if (auto cause = slept_cause(group.leader_status, group.before)) return cause;
  }
  if (group.leader_status != nullptr) {
    if (auto cause = leader_cause(*group.leader_status)) return cause;
  }
  if (silent) {
    return Cause{"Starting", api::kLeaderSilent,
                 "its pods are ready, but its leader " + leader->name +
                     " has not told the operator so: is the way from the operator to its port for "
                     "status open?",
                 *leader->ready_at + kLeaderPatience <= observed.now};
  }
  return Cause{"Starting", api::kStarting, "the ranks load their weights and meet", false};
}

const api::GroupStatus* said_before(const api::ModelStatus& before, const std::string& name) {
  const auto it = std::ranges::find(before.groups, name, &api::GroupStatus::name);
  return it == before.groups.end() ? nullptr : &*it;
}

// A group that is not ready and has had its restarts is told by what ended it.
Cause spent_cause(const Group& group, const RecoveryRule& rule) {
  const bool hard = group.cause && group.cause->hard;
  std::string why = hard ? group.cause->message : "";
  std::string_view reason = hard ? group.cause->reason : api::kCrashLoop;
  int most = 0;
  for (const PodView* pod : group.pods) {
    if (hard || pod == nullptr || pod->restarts <= most) continue;
    most = pod->restarts;
    reason = why_it_ended(*pod);
    why = "pod " + pod->name + ": " + how_it_ended(*pod);
  }
  return {"Failed", reason,
          "its containers and pods ended " + std::to_string(group.restarts.recent) +
              " times and spec.recovery.maxRestarts is " + std::to_string(rule.max_restarts) +
              ", so it is replaced whole; " + why,
          true};
}

void find_failed_nodes(Group& group, const Observed& observed) {
  int most = 1;
  for (const PodView* pod : group.pods) {
    if (pod != nullptr) most = std::max(most, pod->restarts);
  }
  for (const PodView* pod : group.pods) {
    if (pod == nullptr || pod->node.empty()) continue;
    const bool failing = pod->waiting_reason == "CrashLoopBackOff" || pod->restarts == most;
    if (pod_stuck(*pod, observed) || refused_by_node(*pod) || lost_gpu(*pod, group.before) ||
        (group.restarts.spent && failing)) {
      group.failed_nodes.push_back(pod->node);
    }
  }
}

// The pods of a group that was tried anew have been made a moment ago.
void find_incomplete(Group& group, const std::map<std::string, Refusal>& refused) {
  group.incomplete_since = group.unschedulable_since;
  const auto refusal = refused.find(group.name);
  const bool lacks_one = std::ranges::find(group.pods, nullptr) != group.pods.end();
  if (refusal == refused.end() || !lacks_one) return;
  group.refused = refusal->second;
  WallTime since = group.refused->since;
  for (const PodView* pod : group.pods) {
    if (pod != nullptr) since = std::max(since, pod->created);
  }
  group.incomplete_since = std::min(since, group.incomplete_since.value_or(since));
}

// How long the others have found no node says nothing: it may have waited as a whole before, for
// quota or for nodes, and have held nothing.
void find_half_placed(Group& group) {
  if (!group.incomplete_since) return;
  std::optional<WallTime> first;
  for (const PodView* pod : group.pods) {
    if (!stays(pod, group.before) || pod->node.empty()) continue;
    const WallTime placed = pod->scheduled.value_or(pod->created);
    first = std::min(first.value_or(placed), placed);
  }
  if (first) group.half_since = std::max(*group.incomplete_since, *first);
}

// Its leader runs and has told this operator nothing: if its pods are ready it serves, and to one
// that has just begun to lead it may as well sleep.
bool may_serve_unheard(const Group& group, const Observed& observed) {
  const PodView* leader = group.leader();
  if (group.leader_status != nullptr || leader == nullptr || leader->deletion) return false;
  return leader->ready_at || (leader->running && observed.leads_since &&
                              observed.now < *observed.leads_since + kLeaderPatience);
}

void summarise(Group& group, const Observed& observed, const GroupContext& context,
               const std::map<std::string, Refusal>& refused) {
  const api::GroupStatus* before = said_before(context.before, group.name);
  group.before = before;
  bool whole = group.known;
  bool any_stays = false;
  for (const PodView* pod : group.pods) {
    const bool pod_stays = stays(pod, before);
    whole = whole && pod_stays && pod->ready;
    any_stays = any_stays || pod_stays;
    if (pod == nullptr) continue;
    group.bound_together = group.bound_together || pod->bound_together;
    group.stuck = group.stuck || pod_stuck(*pod, observed);
    group.placed = group.placed || (pod_stays && !pod->node.empty());
    if (pod->unschedulable_since && !pod->deletion &&
        (!group.unschedulable_since || *pod->unschedulable_since < *group.unschedulable_since)) {
      group.unschedulable_since = pod->unschedulable_since;
    }
  }
  find_incomplete(group, refused);
  find_half_placed(group);
  const PodView* leader = group.leader();
  if (leader != nullptr) {
    const auto it = observed.leaders.find(leader->uid);
    if (it != observed.leaders.end() && it->second.received + kStatusStale >= observed.now) {
      group.leader_status = &it->second;
      group.work = it->second.running + it->second.queue_depth;
    }
  }
  // The leader knows at once what the kubelet finds out some seconds later. A group becomes ready
  // by its leader's word; while the leader is not heard, it stays what it was.
  group.ready =
      whole && (group.leader_status != nullptr ? !leader_cause(*group.leader_status)
                                               : before != nullptr && before->phase == "Ready");
  group.unheard = may_serve_unheard(group, observed);
  group.ended = !any_stays;
  group.fallen =
      group.ended && std::ranges::any_of(group.pods, [before](const PodView* pod) {
        return pod != nullptr && !pod->deletion && (failed(*pod) || lost_gpu(*pod, before));
      });
  group.leader_going = leader == nullptr || leader->deletion.has_value();
  group.served = group.ready || (before != nullptr && before->served);
  group.restarts = count_restarts(group.pods, before, context.recovery, observed.now);
  find_failed_nodes(group, observed);
  if (const auto revision = context.revisions.find(group.revision); group.known) {
    group.leaving = leaving(group.pods, observed, tolerations_of(revision->second.spec));
  }
  group.cause = diagnose(group, observed);
  if (!group.ready && group.restarts.spent) group.cause = spent_cause(group, context.recovery);
  group.rests = group.cause && rests(*group.cause);
  group.stands = group.ready || (context.sleeps && group.cause && sleeps(*group.cause));
}

}  // namespace

bool pod_stuck(const PodView& pod, const Observed& observed) {
  return pod_stuck(pod, node_lost(observed, pod.node), observed.now);
}

bool pod_stuck(const PodView& pod, bool node_lost, WallTime now) {
  return pod.deletion && (*pod.deletion + kStuckAfter < now || node_lost);
}

std::vector<Group> groups_of(const Observed& observed, const GroupContext& context) {
  std::map<std::pair<std::string, int>, Group> groups;
  for (const PodView& pod : observed.pods) {
    if (pod.group < 0 || pod.index < 0 || pod.owner_uid != context.uid) continue;
    if (pod.name != api::pod_name(context.model, pod.revision, pod.group, pod.index)) continue;
    Group& group = groups[{pod.revision, pod.group}];
    if (group.name.empty()) {
      group.name = api::group_name(context.model, pod.revision, pod.group);
      group.revision = pod.revision;
      group.number = pod.group;
      const auto revision = context.revisions.find(pod.revision);
      group.known = revision != context.revisions.end();
      group.want = group.known ? revision->second.spec.pods_per_group() : 0;
      group.pods.resize(static_cast<std::size_t>(group.want), nullptr);
    }
    const auto index = static_cast<std::size_t>(pod.index);
    if (index >= group.pods.size()) group.pods.resize(index + 1, nullptr);
    group.pods[index] = &pod;
  }
  const auto refused = refused_groups(observed);
  std::vector<Group> out;
  out.reserve(groups.size());
  for (auto& [key, group] : groups) {
    summarise(group, observed, context, refused);
    out.push_back(std::move(group));
  }
  return out;
}

bool pod_name_taken(const Observed& observed, std::string_view name) {
  return std::ranges::find(observed.pods, name, &PodView::name) != observed.pods.end();
}

}  // namespace dsm::plan
