#include "operator/plan/groups.h"

#include <algorithm>
#include <array>

#include "operator/api/names.h"
#include "operator/api/reasons.h"

namespace dsm::plan {
namespace {

bool ended(const PodView& pod) {
  return pod.phase == "Failed" || pod.phase == "Succeeded";
}

bool stays(const PodView* pod) {
  return pod != nullptr && !pod->deletion && !ended(*pod);
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

// What is the matter with one pod that is there; nothing when it is only on its way.
std::optional<Cause> pod_cause(const PodView& pod, WallTime now) {
  const std::string name = "pod " + pod.name;
  if (pod.deletion) {
    if (*pod.deletion + kStuckAfter < now) {
      return Cause{"Recovering", api::kNodeLost,
                   name + " does not end: node " + pod.node +
                       " does not answer. Its group is made again elsewhere; the pod goes when the "
                       "node comes back or is deleted",
                   true};
    }
    return Cause{"Recovering", api::kPodLost, name + " is being deleted; it is made again", true};
  }
  if (ended(pod)) {
    const std::string why = pod.status_reason.empty()
                                ? how_it_ended(pod)
                                : pod.status_reason + ": " + pod.status_message;
    return Cause{"Recovering", api::kPodLost, name + " has ended (" + why + "); it is made again",
                 true};
  }
  if (pod.unschedulable_since) {
    return Cause{"Pending", api::kUnschedulable,
                 "no node has room for " + name + ": " + pod.unschedulable_message, true};
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
        "Starting", api::kCrashLoop,
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
  const auto tenths = static_cast<long>(value * 10 + 0.5);
  return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + " " + kUnits[unit];
}

// What the leader says of itself.
std::optional<Cause> leader_cause(const LeaderStatus& status) {
  if (status.phase == "Failed") {
    const std::string& why = status.last_error.empty() ? status.message : status.last_error;
    return Cause{"Starting", api::kWorkerFailed, "the leader has failed: " + why, true};
  }
  if (status.phase == "Loading") {
    return Cause{"Loading", api::kLoadingWeights,
                 "weights: " + bytes_text(status.loaded_bytes) + " of " +
                     bytes_text(status.total_bytes) + " loaded",
                 false};
  }
  if (status.phase == "Rendezvous") {
    return Cause{"Rendezvous", api::kRendezvous,
                 status.message.empty() ? "the leader waits for the other ranks" : status.message,
                 false};
  }
  if (status.phase == "Draining") {
    return Cause{"Recovering", api::kDraining, "the leader finishes its requests and restarts",
                 false};
  }
  return std::nullopt;
}

std::optional<Cause> diagnose(const Group& group, WallTime now) {
  if (group.ready) return std::nullopt;
  for (const PodView* pod : group.pods) {
    if (pod == nullptr) continue;
    if (auto cause = pod_cause(*pod, now)) return cause;
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
  if (!missing.empty() && group.served) {
    return Cause{"Recovering", api::kPodLost, "pod " + missing + " is gone and is made again",
                 true};
  }
  if (!missing.empty()) {
    return Cause{"Pending", api::kCreating, "pod " + missing + " is to be made", false};
  }
  if (!starting.empty()) {
    return Cause{"Starting", api::kStarting, "the container starts in " + starting, false};
  }
  if (group.leader_status != nullptr) {
    if (auto cause = leader_cause(*group.leader_status)) return cause;
  }
  return Cause{"Starting", api::kStarting, "the ranks load their weights and meet", false};
}

bool served_before(const api::ModelStatus& before, const std::string& name) {
  const auto it = std::ranges::find(before.groups, name, &api::GroupStatus::name);
  return it != before.groups.end() && (it->phase == "Ready" || it->phase == "Recovering");
}

void summarise(Group& group, const Observed& observed, const api::ModelStatus& before) {
  bool whole = group.known;
  bool any_stays = false;
  for (const PodView* pod : group.pods) {
    whole = whole && stays(pod) && pod->ready;
    any_stays = any_stays || stays(pod);
    if (pod == nullptr) continue;
    group.restarts += pod->restarts;
    group.stuck = group.stuck || (pod->deletion && *pod->deletion + kStuckAfter < observed.now);
    group.crash_looping = group.crash_looping || (pod->waiting_reason == "CrashLoopBackOff" &&
                                                  pod->restarts >= kRestartBound);
    if (pod->unschedulable_since && !pod->deletion &&
        (!group.unschedulable_since || *pod->unschedulable_since < *group.unschedulable_since)) {
      group.unschedulable_since = pod->unschedulable_since;
    }
  }
  const PodView* leader = group.leader();
  group.ready = whole;
  group.ended = !any_stays;
  group.leader_going = leader == nullptr || leader->deletion.has_value();
  group.served = group.ready || served_before(before, group.name);
  if (leader != nullptr) {
    const auto it = observed.leaders.find(leader->uid);
    if (it != observed.leaders.end() && it->second.received + kStatusStale >= observed.now) {
      group.leader_status = &it->second;
      group.work = it->second.running + it->second.queue_depth;
    }
  }
  group.cause = diagnose(group, observed.now);
  if (group.cause && group.served) group.cause->phase = "Recovering";
}

}  // namespace

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
      const auto want = context.pods_per_revision.find(pod.revision);
      group.known = want != context.pods_per_revision.end();
      group.want = group.known ? want->second : 0;
      group.pods.resize(static_cast<std::size_t>(group.want), nullptr);
    }
    const auto index = static_cast<std::size_t>(pod.index);
    if (index >= group.pods.size()) group.pods.resize(index + 1, nullptr);
    group.pods[index] = &pod;
  }
  std::vector<Group> out;
  out.reserve(groups.size());
  for (auto& [key, group] : groups) {
    summarise(group, observed, context.before);
    out.push_back(std::move(group));
  }
  return out;
}

bool pod_name_taken(const Observed& observed, std::string_view name) {
  return std::ranges::find(observed.pods, name, &PodView::name) != observed.pods.end();
}

}  // namespace dsm::plan
