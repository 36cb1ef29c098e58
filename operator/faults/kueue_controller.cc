#include "operator/faults/kueue_controller.h"

#include <algorithm>
#include <utility>

#include "kube/parse.h"
#include "operator/plan/kueue.h"
#include "operator/plan/simulate_json.h"

namespace dsm::faults {
namespace {

using kube::member;
using kube::text_of;
using plan::label;

constexpr const char* kGroupLabel = "kueue.x-k8s.io/pod-group-name";
constexpr const char* kCountNote = "kueue.x-k8s.io/pod-group-total-count";
constexpr const char* kManagedLabel = "kueue.x-k8s.io/managed";

bool is_true(const Json& workload, const char* type) {
  const Json& conditions = member(member(workload, "status"), "conditions");
  return std::ranges::any_of(conditions, [&](const Json& condition) {
    return condition["type"] == type && condition["status"] == "True";
  });
}

std::string queue_of(const Json& workload) {
  return workload["spec"]["queueName"];
}

int count_of(const Json& workload) {
  return workload["spec"]["podSets"][0]["count"];
}

bool gated(const Json& pod) {
  return pod["spec"].contains("schedulingGates");
}

std::string group_key(const Json& pod) {
  return text_of(pod["metadata"], "namespace") + "/" + label(pod, kGroupLabel);
}

}  // namespace

KueueController::KueueController(ApiServer& server,
                                 std::function<void(const plan::SimulatedPod&)> on_eviction)
    : server_(server), on_eviction_(std::move(on_eviction)) {
  server_.define(kube::kWorkloads, true);
  server_.webhook = [this](Json& pod) { return at_admission(pod); };
}

// It is asked about every pod, and a pod that it cannot be asked about is not made.
std::string KueueController::at_admission(Json& pod) const {
  if (server_.kubelets().now_s() < webhook_down_until_) {
    return "failed calling webhook \"mpod.kb.io\": connection refused";
  }
  if (label(pod, plan::kQueueLabel).empty()) return "";
  pod["metadata"]["labels"][kManagedLabel] = "true";
  pod["metadata"]["finalizers"] = Json::array({plan::kQueueFinalizer});
  pod["spec"]["schedulingGates"] = Json::array({{{"name", plan::kQueueGate}}});
  return "";
}

void KueueController::stop(int seconds, bool webhook_too) {
  stopped_until_ = kubelets().now_s() + seconds;
  if (webhook_too) webhook_down_until_ = stopped_until_;
}

void KueueController::go_on() {
  stopped_until_ = 0;
  webhook_down_until_ = 0;
  stop_at_a_gate_ = 0;
}

KueueController::Groups KueueController::groups() {
  Groups groups;
  for (const plan::SimulatedPod& pod : kubelets().all_pods()) {
    if (label(pod.object, kManagedLabel).empty()) continue;
    Group& group = groups[group_key(pod.object)];
    group.queue = label(pod.object, plan::kQueueLabel);
    group.count = std::stoi(text_of(pod.object["metadata"]["annotations"], kCountNote));
    group.pods.push_back(key_of(pod.object));
  }
  return groups;
}

int KueueController::active(const Group& group) {
  return static_cast<int>(std::ranges::count_if(group.pods, [&](const std::string& key) {
    const Json& pod = kubelets().pod(key)->object;
    return !plan::deleted(pod) && !plan::has_ended(pod);
  }));
}

bool KueueController::runs(const Group& group) {
  return std::ranges::any_of(group.pods, [&](const std::string& key) {
    const plan::SimulatedPod* const pod = kubelets().pod(key);
    return pod != nullptr && pod->object["spec"].contains("nodeName") &&
           !plan::has_ended(pod->object);
  });
}

std::vector<std::string> KueueController::workloads() const {
  std::vector<std::pair<int, std::string>> sorted;
  for (const auto& [key, workload] : server_.objects().all(kube::kWorkloads)) {
    sorted.emplace_back(workload["spec"]["number"].get<int>(), key);
  }
  std::ranges::sort(sorted);
  std::vector<std::string> keys;
  for (auto& [number, key] : sorted) keys.push_back(std::move(key));
  return keys;
}

const Json& KueueController::workload(const std::string& key) const {
  return *server_.objects().find(kube::kWorkloads, key);
}

void KueueController::say(const std::string& key, const char* condition, bool is,
                          const std::string& reason, const std::string& message) {
  Json next = workload(key);
  plan::set_condition(next, condition, is, reason, message, now());
  server_.objects().put(kube::kWorkloads, std::move(next));
}

bool KueueController::has_admitted(const Json& pod) const {
  const Json* const found = server_.objects().find(kube::kWorkloads, group_key(pod));
  return found != nullptr && is_true(*found, "QuotaReserved");
}

int KueueController::reserved(const std::string& queue) const {
  int sum = 0;
  for (const auto& [key, workload] : server_.objects().all(kube::kWorkloads)) {
    if (queue_of(workload) != queue || !is_true(workload, "QuotaReserved")) continue;
    sum += count_of(workload);
  }
  return sum;
}

void KueueController::pass_second() {
  if (kubelets().now_s() < stopped_until_) return;
  const Groups groups = this->groups();
  keep_workloads(groups);
  end_evictions(groups);
  preempt(groups);
  admit();
  ungate(groups);
}

void KueueController::keep_workloads(const Groups& groups) {
  for (const std::string& key : workloads()) {
    if (!groups.contains(key)) server_.objects().erase(kube::kWorkloads, key);
  }
  for (const auto& [key, group] : groups) {
    if (server_.objects().find(kube::kWorkloads, key) != nullptr) continue;
    if (active(group) < group.count) continue;
    const auto slash = key.find('/');
    server_.objects().put(
        kube::kWorkloads,
        {{"apiVersion", kube::kWorkloads.api_version()},
         {"kind", kube::kWorkloads.kind},
         {"metadata", {{"namespace", key.substr(0, slash)}, {"name", key.substr(slash + 1)}}},
         {"spec",
          {{"queueName", group.queue},
           {"number", ++made_},
           {"podSets", {{{"name", "main"}, {"count", group.count}}}}}}});
  }
}

void KueueController::preempt(const Groups& groups) {
  for (auto& [name, queue] : queues) {
    std::vector<std::string> admitted;
    int kept = 0;
    for (const std::string& key : workloads()) {
      const Json& each = workload(key);
      if (queue_of(each) != name || !is_true(each, "Admitted")) continue;
      admitted.push_back(key);
      kept += count_of(each);
    }
    while (!admitted.empty() &&
           (queue.drained || (queue.preempts && kept + queue.others > queue.quota))) {
      kept -= count_of(workload(admitted.back()));
      evict(admitted.back(), queue.drained ? "ClusterQueueStopped" : "Preempted", groups);
      admitted.pop_back();
    }
    queue.preempts = false;
  }
}

void KueueController::evict(const std::string& key, const std::string& reason,
                            const Groups& groups) {
  say(key, "Evicted", true, reason, "");
  say(key, "Admitted", false, "NoReservation", "The workload has no reservation");
  for (const std::string& name : groups.at(key).pods) {
    const plan::SimulatedPod* const pod = kubelets().pod(name);
    if (pod == nullptr || plan::deleted(pod->object) || gated(pod->object)) continue;
    on_eviction_(*pod);
    kubelets().end(name);
  }
}

void KueueController::end_evictions(const Groups& groups) {
  for (const std::string& key : workloads()) {
    if (!is_true(workload(key), "Evicted") || !is_true(workload(key), "QuotaReserved")) continue;
    if (!runs(groups.at(key))) say(key, "QuotaReserved", false, "Pending", "evicted");
  }
}

void KueueController::admit() {
  for (const std::string& key : workloads()) {
    const Json& each = workload(key);
    if (is_true(each, "QuotaReserved")) continue;
    const Queue& queue = queues[queue_of(each)];
    const int lacks = reserved(queue_of(each)) + queue.others + count_of(each) - queue.quota;
    if (queue.drained) {
      say(key, "QuotaReserved", false, "Inadmissible", "the queue is stopped");
    } else if (lacks > 0) {
      say(key, "QuotaReserved", false, "Pending",
          "couldn't assign flavors to pod set main: insufficient unused quota for pods in flavor "
          "default, " +
              std::to_string(lacks) + " more needed");
    } else {
      say(key, "QuotaReserved", true, "QuotaReserved", "");
      say(key, "Admitted", true, "Admitted", "");
      say(key, "Evicted", false, "QuotaReserved", "");
    }
  }
}

void KueueController::ungate(const Groups& groups) {
  for (const std::string& key : workloads()) {
    if (!is_true(workload(key), "Admitted")) continue;
    for (const std::string& name : groups.at(key).pods) {
      const Json& pod = kubelets().pod(name)->object;
      if (!gated(pod) || plan::deleted(pod)) continue;
      kubelets().ungate(name);
      if (stop_at_a_gate_ == 0) continue;
      return stop(std::exchange(stop_at_a_gate_, 0), /*webhook_too=*/false);
    }
  }
}

}  // namespace dsm::faults
