#include "operator/plan/simulated_cluster.h"

#include <algorithm>
#include <utility>

#include "operator/api/names.h"
#include "operator/api/reasons.h"
#include "operator/plan/coscheduling.h"
#include "operator/plan/simulate_json.h"

namespace dsm::plan {

using nlohmann::json;

namespace {

bool same_group(const SimulatedPod& a, const SimulatedPod& b) {
  for (const std::string_view key : {api::kModelLabel, api::kRevisionLabel, api::kGroupLabel}) {
    if (label(a.object, key) != label(b.object, key)) return false;
  }
  return true;
}

bool held(const SimulatedPod& pod) {
  return !pod.object["metadata"].value("finalizers", json::array()).empty();
}

bool gated(const SimulatedPod& pod) {
  return !pod.object["spec"].value("schedulingGates", json::array()).empty();
}

}  // namespace

bool leads_standing_group(const SimulatedPod& pod) {
  if (label(pod.object, api::kRoleLabel) != api::kRoleLeader) return false;
  return is_ready(pod.object) || (pod.asleep && !deleted(pod.object));
}

void SimulatedCluster::remove(Pod& pod, int grace_s) {
  if (deleted(pod.object)) return;
  pod.object["metadata"]["deletionTimestamp"] = to_rfc3339(now() + Seconds(grace_s));
  const bool leader = label(pod.object, api::kRoleLabel) == api::kRoleLeader;
  const bool runs = pod.started >= 0;
  pod.drains = leader && runs && group_loaded(pod);
  if (!pod.lost) pod.ends = now_s_ + (runs && leader ? drain_s : 1);
  if (runs) set_condition(pod.object, "Ready", false, "", "", now());
  dirty_ = true;
}

void SimulatedCluster::fail(Pod& pod) {
  pod.object["status"]["phase"] = "Failed";
  pod.object["status"]["reason"] = "Evicted";
  pod.object["status"]["message"] = "the node was low on memory";
  pod.object["status"]["containerStatuses"][0]["state"] = {{"terminated", {{"exitCode", 137}}}};
  set_condition(pod.object, "Ready", false, "", "", now());
  pod.started = -1;
  dirty_ = true;
}

void SimulatedCluster::crash(Pod& pod, const std::string& words) {
  json& container = pod.object["status"]["containerStatuses"][0];
  container["state"] = {{"waiting", {{"reason", "CrashLoopBackOff"}}}};
  container["lastState"] = {
      {"terminated", {{"exitCode", 9}, {"reason", "Error"}, {"message", words}}}};
  set_condition(pod.object, "Ready", false, "", "", now());
  pod.started = -1;
  pod.back_at = now_s_ + 3;
  dirty_ = true;
}

void SimulatedCluster::lose_node(Pod& pod) {
  pod.lost = true;
  pod.started = -1;
  set_condition(nodes_.at(pod.object["spec"]["nodeName"]), "Ready", false, "", "", now());
  set_condition(pod.object, "Ready", false, "", "", now());
  remove(pod, 75);
}

void SimulatedCluster::cordon(const std::string& node, bool cordoned) {
  nodes_.at(node)["spec"]["unschedulable"] = cordoned;
  dirty_ = true;
}

void SimulatedCluster::mend_nodes() {
  for (auto& [name, node] : nodes_) {
    node["spec"] = json::object();
    set_condition(node, "Ready", true, "", "", now());
  }
  for (Pod& pod : pods_) {
    if (pod.lost) pod.ends = now_s_ + 1;
  }
  dirty_ = true;
}

void SimulatedCluster::taint(const std::string& node, const std::string& key,
                             const std::string& effect) {
  nodes_.at(node)["spec"]["taints"].push_back({{"key", key}, {"effect", effect}});
  dirty_ = true;
}

// Each group number has a node and a spare one; "" when neither may be used. A node that the pod
// would rather not have comes last.
std::string SimulatedCluster::node_for(const Pod& pod) {
  const json preference = pod.object["spec"].value(
      json::json_pointer("/affinity/nodeAffinity/preferredDuringSchedulingIgnoredDuringExecution"),
      json::array());
  const std::string number = label(pod.object, api::kGroupLabel);
  std::string last_resort;
  for (const std::string& name : {"node-" + number, "spare-" + number}) {
    const json& node =
        nodes_
            .try_emplace(
                name, json{{"metadata", {{"name", name}}},
                           {"spec", json::object()},
                           {"status", {{"conditions", {{{"type", "Ready"}, {"status", "True"}}}}}}})
            .first->second;
    const bool usable = is_ready(node) && !node["spec"].value("unschedulable", false) &&
                        !node["spec"].contains("taints");
    if (!usable) continue;
    const bool avoided = std::ranges::any_of(preference, [&](const json& term) {
      return term["preference"]["matchFields"][0]["values"][0] == name;
    });
    if (!avoided) return name;
    if (last_resort.empty()) last_resort = name;
  }
  return last_resort;
}

// What the coscheduling plugin says of a pod without a node; "" when its group may have its nodes.
std::string SimulatedCluster::why_not_together(const Pod& pod, int used) const {
  const std::string name = label(pod.object, kPodGroupLabel);
  if (!pod_groups || name.empty()) return "";
  const json* const group = pod_group(name);
  if (group == nullptr) return "0/1 nodes: PodGroup not found";
  int there = 0;
  int out_of_it = 0;  // gated, or over
  int waiting = 0;
  int before = 0;  // of those that wait
  for (const Pod& other : pods_) {
    if (&other == &pod) before = waiting;
    if (label(other.object, kPodGroupLabel) != name) continue;
    ++there;
    out_of_it += gated(other) || over(other) ? 1 : 0;
    waiting += other.object["spec"].contains("nodeName") ? 0 : 1;
  }
  const int least = (*group)["spec"]["minMember"];
  if (there < least) return "0/1 nodes: cannot find enough sibling pods";
  if (there - out_of_it < least) return "0/1 nodes: 1 optimistic rejection in PostFilter";
  if (used + waiting <= room) return "";
  return used + before < room ? "0/1 nodes: 1 optimistic rejection in PostFilter"
                              : "0/1 nodes: no cpu";
}

void SimulatedCluster::schedule(Pod& pod, int& used) {
  if (over(pod)) return;
  if (pod.object["spec"].contains("nodeName")) {
    ++used;
    return;
  }
  if (gated(pod)) return;
  const std::string apart = why_not_together(pod, used);
  if (const std::string node = node_for(pod); apart.empty() && used < room && !node.empty()) {
    ++used;
    pod.object["spec"]["nodeName"] = node;
    set_condition(pod.object, "PodScheduled", true, "", "", now());
    dirty_ = true;
    return;
  }
  const json before = pod.object;
  set_condition(pod.object, "PodScheduled", false, "Unschedulable",
                apart.empty() ? "0/1 nodes: no cpu" : apart, now());
  dirty_ = dirty_ || pod.object != before;
}

void SimulatedCluster::start_or_crash(Pod& pod) {
  if (pod.object["status"]["phase"] == "Failed" || pod.lost || deleted(pod.object)) return;
  if (!pod.object["spec"].contains("nodeName")) return;
  const bool bad = pod.object["spec"]["containers"][0]["image"] == bad_image ||
                   bad_nodes.contains(pod.object["spec"]["nodeName"]);
  if (pod.started < 0 && refusing_nodes.contains(pod.object["spec"]["nodeName"])) {
    pod.object["status"]["phase"] = "Failed";
    pod.object["status"]["reason"] = "UnexpectedAdmissionError";
    pod.object["status"]["message"] = "Allocate failed: no healthy devices";
    dirty_ = true;
    return;
  }
  json& statuses = pod.object["status"]["containerStatuses"];
  if (pod.started < 0 && now_s_ >= pod.back_at) {
    pod.object["status"]["phase"] = "Running";
    pod.object["status"]["podIP"] = "10.0.0.1";
    if (statuses.is_null()) statuses = json::array({{{"restartCount", 0}}});
    if (pod.back_at >= 0) {
      statuses[0]["restartCount"] = statuses[0]["restartCount"].get<int>() + 1;
    }
    statuses[0]["state"] = {{"running", {{"startedAt", to_rfc3339(now())}}}};
    pod.started = now_s_;
    pod.told_to_sleep = false;
    dirty_ = true;
  } else if (bad && pod.started >= 0 && now_s_ > pod.started) {
    statuses[0]["state"] = {{"waiting", {{"reason", "CrashLoopBackOff"}}}};
    statuses[0]["lastState"] = {
        {"terminated", {{"exitCode", 1}, {"reason", "Error"}, {"message", last_words}}}};
    pod.started = -1;
    pod.back_at = now_s_ + 5;
    dirty_ = true;
  }
}

bool SimulatedCluster::group_loaded(const Pod& pod) const {
  int there = 0;
  for (const Pod& other : pods_) {
    const bool loaded = other.started >= 0 && now_s_ >= other.started + load_s;
    there += loaded && same_group(other, pod) ? 1 : 0;
  }
  const json& args = pod.object["spec"]["containers"][0]["args"];
  const auto at = std::ranges::find(args, json("--tensor-parallel"));
  const auto per = std::ranges::find(args, json("--ranks-per-pod"));
  const int tensor = std::stoi((at + 1)->get<std::string>());
  return there == (per == args.end() ? 1 : tensor / std::stoi((per + 1)->get<std::string>()));
}

LeaderStatus SimulatedCluster::says(const Pod& leader) const {
  const bool loaded = now_s_ >= leader.started + load_s;
  LeaderStatus status;
  status.phase = !loaded ? "Loading" : group_loaded(leader) ? "Ready" : "Rendezvous";
  status.told_to_sleep = leader.told_to_sleep;
  if (status.phase == "Ready" && leader.told_to_sleep) {
    status.phase = "Asleep";
    status.reason = api::kAsleep;
    status.message = "all ranks sleep";
  }
  status.total_bytes = 100;
  status.loaded_bytes = loaded ? 100 : 50;
  status.kv_total = 1000;
  status.max_model_len = 512;
  status.received = now();
  return status;
}

void SimulatedCluster::tell_sleep(Pod& leader, bool sleep) {
  if (std::exchange(leader.told_to_sleep, sleep) != sleep) dirty_ = true;
}

// Its group has been told to, and does so at once.
bool SimulatedCluster::sleeps(const Pod& pod) const {
  const bool told = std::ranges::any_of(
      pods_, [&](const Pod& other) { return other.told_to_sleep && same_group(other, pod); });
  return told && group_loaded(pod);
}

bool SimulatedCluster::gone(const Pod& pod) const {
  return over(pod) && !held(pod);
}

// Its processes have ended; the pod stays for whoever holds it.
void SimulatedCluster::finish(Pod& pod) {
  json& status = pod.object["status"];
  if (!pod.object["spec"].contains("nodeName")) return;  // no kubelet knows of it
  if (status["phase"] == "Failed" || status["phase"] == "Succeeded") return;
  const bool ran = pod.started >= 0;
  status["phase"] = ran ? "Succeeded" : "Failed";
  if (ran) status["containerStatuses"][0]["state"] = {{"terminated", {{"exitCode", 0}}}};
  pod.started = -1;
  dirty_ = true;
}

void SimulatedCluster::next_second() {
  ++now_s_;
  if (std::erase_if(pods_, [&](const Pod& pod) { return gone(pod); }) > 0) dirty_ = true;
  for (Pod& pod : pods_) {
    if (over(pod)) finish(pod);
  }
  int used = 0;
  for (Pod& pod : pods_) {
    if (pod.object["spec"].contains("nodeName")) schedule(pod, used);
  }
  for (Pod& pod : pods_) {
    if (!pod.object["spec"].contains("nodeName")) schedule(pod, used);
    start_or_crash(pod);
  }
  for (Pod& pod : pods_) {
    // A leader's line says it, where no readiness changes.
    const bool asleep = pod.started >= 0 && sleeps(pod);
    if (asleep != std::exchange(pod.asleep, asleep)) dirty_ = true;
    const bool ready = pod.started >= 0 && !deleted(pod.object) && group_loaded(pod) && !asleep;
    if (pod.started < 0 || ready == is_ready(pod.object)) continue;
    set_condition(pod.object, "Ready", ready, "", "", now());
    dirty_ = true;
  }
}

}  // namespace dsm::plan
