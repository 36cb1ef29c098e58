// The simulated cluster (operator/plan) behind an API server: what happens to pods and nodes there
// is written to the server, and what the server is asked to do with pods is done there. For tests.
#pragma once

#include <functional>
#include <string>

#include "operator/faults/objects.h"
#include "operator/plan/simulated_cluster.h"

namespace dsm::faults {

class Kubelets : public plan::SimulatedCluster {
 public:
  Kubelets(Objects& objects, WallTime start) : SimulatedCluster(start), objects_(objects) {}

  // A pod was made.
  void take(const Json& pod);
  // A pod is to end; it goes at once when nothing of it can run. While it has finalizers it stays.
  void end(const std::string& key);
  // The scheduler may look at it.
  void ungate(const std::string& key);
  // Somebody gives up a hold on a pod.
  void take_off(Pod& pod, const std::string& finalizer);
  void pass_second();
  // What has happened is written to the API server.
  void publish();

  // Of a leader: requests that wait there. Empty: none.
  std::function<long(const Pod& leader)> queue_of;

  // nullptr: there is none.
  Pod* pod(const std::string& key);
  Pod* pod_of_uid(const std::string& uid);

 private:
  const Json* pod_group(const std::string& name) const override;

  Objects& objects_;
};

}  // namespace dsm::faults
