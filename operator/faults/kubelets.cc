#include "operator/faults/kubelets.h"

#include <algorithm>
#include <set>
#include <utility>

namespace dsm::faults {

void Kubelets::take(const Json& pod) {
  pods_.push_back({.object = pod});
}

Kubelets::Pod* Kubelets::pod(const std::string& key) {
  const auto it =
      std::ranges::find_if(pods_, [&](const Pod& pod) { return key_of(pod.object) == key; });
  return it == pods_.end() ? nullptr : &*it;
}

Kubelets::Pod* Kubelets::pod_of_uid(const std::string& uid) {
  const auto it = std::ranges::find_if(
      pods_, [&](const Pod& pod) { return pod.object["metadata"]["uid"] == uid; });
  return it == pods_.end() ? nullptr : &*it;
}

void Kubelets::end(const std::string& key) {
  Pod* const found = pod(key);
  if (found == nullptr) return;
  const Json& object = found->object;
  const bool no_grace =
      !object["spec"].contains("nodeName") || object["status"]["phase"] == "Failed";
  remove(*found, object["spec"].value("terminationGracePeriodSeconds", 30));
  if (no_grace) {
    found->ends = now_s_;
    dirty_ = true;
  }
  publish();
}

void Kubelets::ungate(const std::string& key) {
  Pod* const found = pod(key);
  if (found == nullptr || found->object["spec"].erase("schedulingGates") == 0) return;
  dirty_ = true;
  publish();
}

void Kubelets::take_off(Pod& pod, const std::string& finalizer) {
  Json& metadata = pod.object["metadata"];
  Json left = Json::array();
  for (const Json& other : metadata.value("finalizers", Json::array())) {
    if (other != finalizer) left.push_back(other);
  }
  metadata["finalizers"] = std::move(left);
  dirty_ = true;
  publish();
}

const Json* Kubelets::pod_group(const std::string& name) const {
  const auto& all = objects_.all(kube::kPodGroups);
  const auto found = std::ranges::find_if(
      all, [&](const auto& entry) { return entry.second["metadata"]["name"] == name; });
  return found == all.end() ? nullptr : &found->second;
}

void Kubelets::pass_second() {
  next_second();
  publish();
}

void Kubelets::publish() {
  if (!std::exchange(dirty_, false)) return;
  // A pod that has no grace period is seen with the time of its end, and gone with the next event.
  for (Pod& pod : pods_) pod.object = objects_.put(kube::kPods, pod.object);
  std::erase_if(pods_, [&](const Pod& pod) { return gone(pod); });
  std::set<std::string> there;
  for (const Pod& pod : pods_) there.insert(key_of(pod.object));
  std::vector<std::string> gone;
  for (const auto& [key, object] : objects_.all(kube::kPods)) {
    if (!there.contains(key)) gone.push_back(key);
  }
  for (const std::string& key : gone) objects_.erase(kube::kPods, key);
  for (auto& [name, node] : nodes_) {
    Json object = node;
    object["apiVersion"] = "v1";
    object["kind"] = "Node";
    objects_.put(kube::kNodes, std::move(object));
  }
}

}  // namespace dsm::faults
