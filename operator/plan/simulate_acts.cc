// What users do to the simulated model and cluster, and what goes wrong there.
#include <algorithm>

#include "operator/api/names.h"
#include "operator/plan/coscheduling.h"
#include "operator/plan/simulate.h"
#include "operator/plan/simulate_json.h"

namespace dsm::plan {

using nlohmann::json;

void Simulation::edit(const json& merge_patch) {
  const json before = model_["spec"];
  model_["spec"].merge_patch(merge_patch);
  if (model_["spec"] == before) return;
  model_["metadata"]["generation"] = model_["metadata"]["generation"].get<long>() + 1;
  dirty_ = true;
}

// The generation stays.
void Simulation::annotate(const json& merge_patch) {
  model_["metadata"]["annotations"].merge_patch(merge_patch);
  dirty_ = true;
}

void Simulation::remove_pod(const std::string& name) {
  SimulatedCluster::remove(find(name), 75);
}

void Simulation::fail_pod(const std::string& name) {
  fail(find(name));
}

void Simulation::crash_pod(const std::string& name, const std::string& words) {
  crash(find(name), words);
}

void Simulation::lose_node(const std::string& name) {
  SimulatedCluster::lose_node(find(name));
}

void Simulation::drift(const std::string& service, const json& merge_patch) {
  for (json& child : children_) {
    if (child["metadata"]["name"] == service) child.merge_patch(merge_patch);
  }
  dirty_ = true;
}

void Simulation::delete_model() {
  model_["metadata"]["deletionTimestamp"] = to_rfc3339(now());
  dirty_ = true;
}

void Simulation::drain(const std::string& group, bool asked) {
  for (Pod& pod : pods_) {
    if (!short_name(pod.object).starts_with(group + ".")) continue;
    pod.object["metadata"]["annotations"].merge_patch(
        {{std::string(api::kDrainAnnotation), asked ? json("asked") : json()}});
  }
  dirty_ = true;
}

// With the definition go all objects of the kind.
void Simulation::install_pod_groups(bool installed) {
  pod_groups = installed;
  std::erase_if(children_, [](const json& child) { return child["kind"] == kPodGroup; });
  view_.children = children_;
  dirty_ = true;
}

const json* Simulation::pod_group(const std::string& name) const {
  const auto group = std::ranges::find_if(children_, [&](const json& child) {
    return child["kind"] == kPodGroup && child["metadata"]["name"] == name;
  });
  return group == children_.end() ? nullptr : &*group;
}

int Simulation::ready_groups() const {
  return static_cast<int>(std::ranges::count_if(pods_, [&](const Pod& pod) {
    return label(pod.object, api::kRoleLabel) == api::kRoleLeader && is_ready(pod.object);
  }));
}

}  // namespace dsm::plan
