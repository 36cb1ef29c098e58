#include "operator/faults/troubles.h"

#include <vector>

#include "operator/plan/simulate_json.h"

namespace dsm::faults {

void Troubles::empty_or_mend_a_node() {
  plan::SimulatedPod* const pod = some_pod();
  if (pod == nullptr || faults_.below(2) == 0) {
    log_("mend nodes");
    return kubelets().mend_nodes();
  }
  const std::string node = pod->object["spec"]["nodeName"];
  if (faults_.below(2) == 0) {
    log_("cordon " + node);
    return kubelets().cordon(node);
  }
  log_("taint " + node);
  kubelets().taint(node, "example.com/maintenance", "NoSchedule");
}

plan::SimulatedPod* Troubles::some_pod() {
  std::vector<plan::SimulatedPod*> running;
  for (plan::SimulatedPod& pod : kubelets().all_pods()) {
    if (plan::deleted(pod.object) || pod.object["status"]["phase"] != "Running") continue;
    running.push_back(&pod);
  }
  return running.empty()
             ? nullptr
             : running[static_cast<std::size_t>(faults_.below(static_cast<int>(running.size())))];
}

void Troubles::harm_a_pod() {
  plan::SimulatedPod* const pod = some_pod();
  if (pod == nullptr) return;
  const std::string name = key_of(pod->object);
  switch (faults_.below(5)) {
    case 0:
      log_("kubectl delete pod " + name);
      return kubelets().end(name);
    case 1:
      log_("evict " + name);
      return kubelets().fail(*pod);
    case 2:
      log_("crash " + name);
      return kubelets().crash(*pod);
    case 3: {
      const std::string node = pod->object["spec"]["nodeName"];
      log_("spot taint " + node);
      return kubelets().taint(node, "cloud.google.com/impending-node-termination", "NoSchedule");
    }
    default:
      return lose_node(pod->object["spec"]["nodeName"]);
  }
}

void Troubles::lose_node(const std::string& node) {
  log_("lose " + node);
  for (plan::SimulatedPod& pod : kubelets().all_pods()) {
    if (pod.object["spec"].value("nodeName", "") == node) kubelets().lose_node(pod);
  }
}

void Troubles::trouble_an_operator() {
  Replica& replica = world_.replica(faults_.below(World::kOperators));
  const Millis time(1'000 * (1 + faults_.below(30)));
  const std::string long_for = " for " + std::to_string(time.count() / 1'000) + " s";
  switch (faults_.below(4)) {
    case 0:
      log_(replica.name() + " restarts");
      return replica.restart();
    case 1:
      log_(replica.name() + " is cut off" + long_for);
      return replica.cut_off(time);
    case 2:
      log_(replica.name() + " stands still" + long_for);
      return replica.stand_still(time);
    default:
      log_(replica.name() + " hears nobody" + long_for);
      return replica.deafen(time);
  }
}

}  // namespace dsm::faults
