#include "operator/faults/gang_promise.h"

#include <algorithm>
#include <set>

#include "kube/parse.h"
#include "operator/api/names.h"
#include "operator/faults/pod_groups.h"
#include "operator/plan/kueue.h"
#include "operator/plan/rollout.h"
#include "operator/plan/simulate_json.h"

namespace dsm::faults {
namespace {

using kube::member;
using kube::text_of;
using plan::label;

// Beside the operator's own patience: until another operator leads and its watches have come.
constexpr long kLate = 120;

bool has_node(const Json& pod) {
  return pod["spec"].contains("nodeName") && !plan::has_ended(pod);
}

std::string group_of(const Json& pod) {
  return text_of(pod["metadata"], "namespace") + "/" +
         std::string(api::group_of_pod(text_of(pod["metadata"], "name")));
}

// What --tensor-parallel says; here a pod has one rank.
int pods_per_group(const Json& pod) {
  const Json& args = pod["spec"]["containers"][0]["args"];
  const auto at = std::ranges::find(args, Json("--tensor-parallel"));
  return std::stoi((at + 1)->get<std::string>());
}

}  // namespace

std::string GangPromise::queue_of(const Json& pod) const {
  const std::string revision =
      text_of(pod["metadata"], "namespace") + "/" +
      api::revision_object(label(pod, api::kModelLabel), label(pod, api::kRevisionLabel));
  const Json* const object = objects().find(kube::kControllerRevisions, revision);
  if (object == nullptr) return "";
  return text_of(member(member(member(*object, "data"), "spec"), "placement"), "queueName");
}

void GangPromise::check_second() {
  check_admission();
  check_halves();
}

void GangPromise::check_admission() {
  std::map<std::string, int> used;
  for (const plan::SimulatedPod& pod : world_.server().kubelets().all_pods()) {
    if (!has_node(pod.object)) continue;
    const std::string queue = queue_of(pod.object);
    if (label(pod.object, plan::kQueueLabel) != queue && !queue.empty()) {
      world_.breach(key_of(pod.object) + " is not in queue " + queue);
    }
    if (queue.empty()) continue;
    ++used[queue];
    if (!kueue_.has_admitted(pod.object)) {
      world_.breach(key_of(pod.object) + " runs, and its group is not admitted");
    }
  }
  for (const auto& [queue, pods] : used) {
    if (pods <= kueue_.reserved(queue)) continue;
    world_.breach(std::to_string(pods) + " pods of queue " + queue + " run, " +
                  std::to_string(kueue_.reserved(queue)) + " are admitted");
  }
}

void GangPromise::check_halves() {
  struct Group {
    int placed = 0;
    int want = 0;
    bool goes = false;
  };
  std::map<std::string, Group> groups;
  for (const plan::SimulatedPod& pod : world_.server().kubelets().all_pods()) {
    Group& group = groups[group_of(pod.object)];
    group.want = pods_per_group(pod.object);
    group.placed += has_node(pod.object) ? 1 : 0;
    group.goes = group.goes || plan::deleted(pod.object);
  }
  std::erase_if(half_since_, [&](const auto& entry) { return !groups.contains(entry.first); });
  for (const auto& [name, group] : groups) {
    if (group.goes || group.placed == 0 || group.placed == group.want) {
      half_since_.erase(name);
      continue;
    }
    const long since = half_since_.try_emplace(name, world_.now_s()).first->second;
    if (world_.now_s() - since != plan::kPlacementPatience.count() + kLate) continue;
    world_.breach(name + " has held nodes for half of it since " + std::to_string(since) + "s");
  }
}

void GangPromise::check_end() {
  for (const std::string& wrong : wrong_pod_groups(world_.server())) world_.breach(wrong);
}

void GangPromise::check_gone() {
  for (const kube::Resource* const resource :
       {&kube::kPods, &kube::kWorkloads, &kube::kPodGroups}) {
    for (const auto& [key, object] : objects().all(*resource)) {
      world_.breach(std::string(resource->kind) + " " + key + " is left of a model that is gone");
    }
  }
}

}  // namespace dsm::faults
