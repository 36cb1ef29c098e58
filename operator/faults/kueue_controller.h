// Kueue in the simulated cluster, as far as the operator meets it (0.17, with its integration of
// pods). Its webhook gates pods that name a queue, and holds them by a finalizer. A group of them
// has a Workload once all of its pods are there; it is admitted whole when its queue has quota for
// it, else not at all, and evicted when others may have that quota: its pods are deleted, and the
// quota is free when none of them runs. A pod that has ended is let go by nobody here: in groups
// that serve Kueue waits for another one in its place. All that it knows is in its objects, so that
// it may stand still at any time, also when some pods of a group have lost their gate and others
// have not. For tests; single-threaded.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "operator/faults/api_server.h"

namespace dsm::faults {

class KueueController {
 public:
  struct Queue {
    int quota = 1000;       // pods that it admits; lowered, it evicts nobody
    int others = 0;         // of these, taken by others
    bool preempts = false;  // they are about to take them, from the newest groups
    bool drained = false;   // it admits nobody and evicts all
  };

  // Registers its webhook and defines Workloads. `server` must outlive it. `on_eviction` is told of
  // each pod that is about to be deleted.
  KueueController(ApiServer& server, std::function<void(const plan::SimulatedPod&)> on_eviction);

  std::map<std::string, Queue> queues;  // by name

  void pass_second();
  // For so long; without the webhook no pod can be made.
  void stop(int seconds, bool webhook_too);
  // The same, with the next gate that it takes away.
  void stop_amid_an_admission(int seconds) { stop_at_a_gate_ = seconds; }
  void go_on();

  // The pod's group has its quota.
  bool has_admitted(const Json& pod) const;
  int reserved(const std::string& queue) const;

 private:
  struct Group {
    std::string queue;
    int count = 0;                  // pods that it has when it is whole
    std::vector<std::string> pods;  // keys
  };
  using Groups = std::map<std::string, Group>;  // by "namespace/name", as their Workloads

  Kubelets& kubelets() { return server_.kubelets(); }
  WallTime now() const { return server_.kubelets().now(); }
  std::string at_admission(Json& pod) const;
  Groups groups();
  int active(const Group& group);
  bool runs(const Group& group);
  // Keys of Workloads, the oldest first.
  std::vector<std::string> workloads() const;
  const Json& workload(const std::string& key) const;
  void say(const std::string& key, const char* condition, bool is, const std::string& reason,
           const std::string& message);

  void keep_workloads(const Groups& groups);
  void preempt(const Groups& groups);
  void evict(const std::string& key, const std::string& reason, const Groups& groups);
  void end_evictions(const Groups& groups);
  void admit();
  void ungate(const Groups& groups);

  ApiServer& server_;
  const std::function<void(const plan::SimulatedPod&)> on_eviction_;
  int stopped_until_ = 0;
  int webhook_down_until_ = 0;
  int stop_at_a_gate_ = 0;  // seconds; 0: it does not
  int made_ = 0;
};

}  // namespace dsm::faults
