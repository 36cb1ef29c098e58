// A cluster in virtual time: the API server, what lives in the cluster, and two operators of which
// one leads; and what must hold in every second of it. For tests; single-threaded.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "operator/faults/api_server.h"
#include "operator/faults/fault_source.h"
#include "operator/faults/replica.h"
#include "operator/plan/rollout_promise.h"

namespace dsm::faults {

class World {
 public:
  static constexpr int kOperators = 2;
  // A look writes a few objects for each group; more in one second for one model is a storm.
  static constexpr int kMostWritesInASecond = 80;
  // An object is made and removed; what happens is told in a status and as an Event, and a write
  // may be tried again.
  static constexpr int kMostWritesForAnObject = 2;
  static constexpr int kMostWritesForAnEvent = 3;

  // `faults` must outlive it.
  explicit World(FaultSource& faults,
                 const runtime::ModelLoopOptions& options = Replica::loop_options());

  // Between `step`s nothing happens.
  void run(Millis time, Millis step = Millis(100));
  // Until nothing was written for 30 s, longer than an operator that fails is missed; false after
  // `most` of unrest.
  bool settle(Seconds most);

  ApiServer& server() { return server_; }
  Replica& replica(int i) { return *replicas_[static_cast<std::size_t>(i)]; }
  long now_s() const { return server_.kubelets().now_s(); }

  // Pods and nodes are lost, for which no rollout can make up.
  bool harm = false;
  // What else is checked in each second in which something has changed. Empty: nothing.
  std::function<void()> also_check;
  // What controllers do in the cluster, once a second, after what they find has been checked.
  std::vector<std::function<void()>> controllers;
  // What has happened beside pods, nodes and specs that a status tells. Empty: nothing.
  std::function<long()> also_happened;
  // Of a model for whose rollout nothing can be promised now. Empty: there is none.
  std::function<bool(const Json& model)> excused;

  int writes() const { return writes_; }
  // By which verbs what was written: "POST", "PUT", "DELETE", "apply", "merge patch" ... of "pods",
  // "deepseekmodels/status", ...
  const std::map<std::string, std::set<std::string>>& verbs() const { return verbs_; }
  // Writes of an operator that stood still between the check of its lease and the write, after the
  // lease was lost.
  int late_writes() const { return late_writes_; }
  // Somebody else takes a group that stands from a model; `uid` is the model's.
  void took_a_group(const std::string& uid) { promises_[uid].take_one(); }
  // What did not hold: sentences with their second.
  const std::vector<std::string>& breaches() const { return breaches_; }
  void breach(const std::string& what);

  // Whether all is as the specs say, nothing is left of what is gone, and no more was written than
  // it takes.
  void check_end();
  // Of writes, tries included: by the objects that were made and by what has happened to pods,
  // nodes and specs.
  int most_writes() const;

 private:
  void on_write(const Replica& writer, const kube::HttpRequest& request, bool stopped);
  void check_second();
  void check_state();
  void check_model(const std::string& key, const Json& model);
  void check_owners();
  std::vector<const plan::SimulatedPod*> pods_of(const Json& model) const;
  void check_end_of(const Json& model);

  ManualClock clock_;
  ApiServer server_;
  std::vector<std::unique_ptr<Replica>> replicas_;
  TimePoint next_second_;
  std::map<std::string, plan::RolloutPromise> promises_;  // by the model's uid
  std::uint64_t checked_ = 0;                             // version of the objects
  std::map<std::string, std::set<std::string>> verbs_;
  int writes_ = 0;
  int writes_before_ = 0;  // this second
  int late_writes_ = 0;
  std::vector<std::string> breaches_;
};

}  // namespace dsm::faults
