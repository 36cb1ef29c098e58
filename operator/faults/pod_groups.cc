#include "operator/faults/pod_groups.h"

#include <set>

#include "kube/parse.h"
#include "operator/plan/coscheduling.h"
#include "operator/plan/simulate_json.h"

namespace dsm::faults {

void install_pod_groups(ApiServer& server, bool installed) {
  server.kubelets().pod_groups = installed;
  server.define(kube::kPodGroups, installed);
}

std::vector<std::string> wrong_pod_groups(const ApiServer& server) {
  std::vector<std::string> wrong;
  if (!has_pod_groups(server)) return wrong;
  std::set<std::string> named;
  for (const plan::SimulatedPod& pod : server.kubelets().all_pods()) {
    const std::string name = plan::label(pod.object, plan::kPodGroupLabel);
    if (name.empty()) continue;
    named.insert(kube::text_of(pod.object["metadata"], "namespace") + "/" + name);
  }
  const auto& there = server.objects().all(kube::kPodGroups);
  for (const std::string& key : named) {
    if (!there.contains(key)) wrong.push_back("pods name PodGroup " + key + ", which is not there");
  }
  for (const auto& [key, group] : there) {
    if (!named.contains(key)) wrong.push_back("PodGroup " + key + " has no pods");
  }
  return wrong;
}

}  // namespace dsm::faults
