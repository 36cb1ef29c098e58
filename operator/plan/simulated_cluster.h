// A small model of what lives in a cluster beside the API server and the operator: scheduler,
// nodes, kubelets, and the workers in their pods, one second at a time. Shared by the simulation of
// plan() alone (simulate.h) and by that of the whole operator (operator/faults). For tests;
// single-threaded.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "operator/plan/observed.h"

namespace dsm::plan {

struct SimulatedPod {
  nlohmann::json object;
  int started = -1;            // second in which the container started; -1: it does not run
  int ends = -1;               // second in which a deleted pod is gone
  int back_at = -1;            // second in which a crashed container starts again
  bool lost = false;           // on a node that does not answer
  bool drains = false;         // a leader that was ready when it was deleted
  bool told_to_sleep = false;  // a leader, since it started
  bool asleep = false;         // its group
};

// The leader of a group that is ready, or sleeps as it was told.
bool leads_standing_group(const SimulatedPod& pod);

class SimulatedCluster {
 public:
  using Pod = SimulatedPod;

  explicit SimulatedCluster(WallTime start) : start_(start) {}
  virtual ~SimulatedCluster() = default;

  // What the world is like; may be changed at any time.
  int room = 1000;                           // pods that fit on the nodes
  int drain_s = 3;                           // a leader's time from SIGTERM to its end
  int load_s = 2;                            // a rank's time from its start to having its weights
  std::string bad_image;                     // pods of it crash a second after their start
  std::string last_words = "no such model";  // of pods that crash so
  std::set<std::string> bad_nodes;           // and so do those on these nodes
  std::set<std::string> refusing_nodes;      // their kubelets take no pod
  bool pod_groups = false;                   // the coscheduling plugin is installed

  int now_s() const { return now_s_; }
  WallTime now() const { return start_ + Seconds(now_s_) + part_of_s_; }
  std::vector<Pod>& all_pods() { return pods_; }
  const std::vector<Pod>& all_pods() const { return pods_; }
  const std::map<std::string, nlohmann::json>& all_nodes() const { return nodes_; }

  // What the API server tells kubelets.
  void remove(Pod& pod, int grace_s);
  // What goes wrong.
  void fail(Pod& pod);                                        // evicted
  void crash(Pod& pod, const std::string& words = "killed");  // its container dies once
  void lose_node(Pod& pod);  // its node stops answering; the pod is evicted
  // What happens to nodes.
  void cordon(const std::string& node, bool cordoned = true);
  void taint(const std::string& node, const std::string& key, const std::string& effect);
  void mend_nodes();  // they answer again, have no taints and are not cordoned

  // Of a leader that runs.
  LeaderStatus says(const Pod& leader) const;
  void tell_sleep(Pod& leader, bool sleep);
  bool group_loaded(const Pod& pod) const;

 protected:
  // By its name; nullptr: there is none.
  virtual const nlohmann::json* pod_group(const std::string&) const { return nullptr; }

  // The scheduler, the kubelets and the workers until the next second begins.
  void next_second();
  // Its kubelet has done with it, and no finalizer holds it.
  bool gone(const Pod& pod) const;

  WallTime start_;
  int now_s_ = 0;
  Millis part_of_s_{0};  // only of quick edits
  std::vector<Pod> pods_;
  std::map<std::string, nlohmann::json> nodes_;
  bool dirty_ = true;  // something has changed

 private:
  bool over(const Pod& pod) const { return pod.ends >= 0 && pod.ends <= now_s_; }
  void finish(Pod& pod);
  void schedule(Pod& pod, int& used);
  std::string why_not_together(const Pod& pod, int used) const;
  std::string node_for(const Pod& pod);
  void start_or_crash(Pod& pod);
  bool sleeps(const Pod& pod) const;
};

}  // namespace dsm::plan
