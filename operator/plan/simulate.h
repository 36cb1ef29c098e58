// Loops plan() against a small model of the API server and the cluster, one second at a time, so
// that a test asserts a whole history as a table. Like the runtime it looks only when something
// changed or the time asked for has come, so a forgotten requeue_after shows as a history that
// stands still.
//
// A history has a line for each second in which pods were written or the Ready condition changed:
//
//   "0s Ready=Unknown/FirstVisit"
//   "1s +A0.0 +A0.1"            pods 0 and 1 of group 0 of the first revision are made
//   "9s -A0.0 Ready=False/..."  the leader of that group is deleted
//
// Revisions are lettered in the order in which they appear.
//
// Looks go through a view of the cluster, as the runtime's store is one. Without faults it is the
// cluster itself. With faults each watch may stand still for a second, so that a look sees what
// was; and each write may be lost before or after it took effect, with the rest of its plan, or end
// the operator there: the next one knows only what the cluster holds. Our own writes that were
// answered are always seen, and after one that was not the pods are read anew.
//
// For tests; single-threaded.
#pragma once

#include <functional>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "operator/plan/plan.h"
#include "operator/plan/simulated_cluster.h"

namespace dsm::plan {

struct Faults {
  std::mt19937* random = nullptr;  // nullptr: none
  double stall = 0;                // chance that a watch brings nothing in a second
  double lose = 0;                 // chance that a write is lost
};

class Simulation : public SimulatedCluster {
 public:
  explicit Simulation(nlohmann::json spec);

  // What the world is like beside the cluster; may be changed at any time.
  int quota = 1000;                  // pods that the API server lets in
  std::set<std::string> foreign;     // "Kind/name" that somebody else has
  std::map<std::string, long> work;  // requests of a leader, by its short name ("A0.0")
  Config config{.worker_image = "worker:1", .watches_nodes = true};
  Faults faults;
  MetricsApi metrics_api{MetricsApi::State::kOurs, ""};
  std::optional<TenantGrant> tenant;

  // What a user does.
  void edit(const nlohmann::json& merge_patch);      // of the spec
  void annotate(const nlohmann::json& merge_patch);  // of the annotations
  // One after the other, each seen at once.
  void edit_quickly(const std::vector<nlohmann::json>& merge_patches, Millis apart);
  void scale(int replicas) { edit({{"replicas", replicas}}); }
  void remove_pod(const std::string& short_name);  // kubectl delete pod
  void fail_pod(const std::string& short_name);    // evicted
  // Its container dies once, with these last words.
  void crash_pod(const std::string& short_name, const std::string& words = "killed");
  void lose_node(const std::string& short_name);  // its node stops answering; the pod is evicted
  void drift(const std::string& service, const nlohmann::json& merge_patch);  // kubectl patch
  void delete_model();
  void drain(const std::string& group, bool asked = true);  // dsmctl drain; "A0"
  void install_pod_groups(bool installed = true);

  void run(int seconds);
  // Until nothing was written for 20 s; false after `most` seconds of unrest.
  bool settle(int most = 600);

  const std::vector<std::string>& history() const { return history_; }
  void forget_history() { history_.clear(); }
  int writes() const { return writes_; }
  const nlohmann::json& model() const { return model_; }
  const nlohmann::json& status() const { return model_["status"]; }
  const nlohmann::json& spec() const { return model_["spec"]; }
  long generation() const { return model_["metadata"]["generation"]; }
  // "True/AllGroupsReady"
  std::string condition(const std::string& type) const;
  std::string message(const std::string& type) const;
  std::vector<std::string> pods() const;  // short names, sorted
  const nlohmann::json& pod(const std::string& short_name) const;
  const std::vector<nlohmann::json>& children() const { return children_; }
  std::vector<std::string> children(const std::string& kind) const;   // names, sorted
  const std::vector<std::string>& events() const { return events_; }  // reasons, in order
  int looks() const { return looks_; }
  int ready_groups() const;

  // Held in every second; a sentence for each breach.
  const std::vector<std::string>& breaches() const { return breaches_; }
  int least_ready = 0;  // breach when fewer groups are ready

 private:
  // What the operator's caches hold.
  struct View {
    nlohmann::json model;
    std::vector<nlohmann::json> pods;
    std::vector<nlohmann::json> children;
    std::map<std::string, nlohmann::json> nodes;
  };

  // The operator (simulate.cc).
  void step();
  void look();
  Observed observe();
  void watch();
  View world() const;
  void carry_out(const Plan& plan);
  void remove(const Removal& removal);
  void write_child(const ChildWrite& child);
  void create_pod(const nlohmann::json& object);
  void write_status(const nlohmann::json& status);
  // Lets a write take effect and its answer be seen, unless a fault takes it.
  void send(const std::function<void()>& effect, const std::function<void()>& answer);
  bool chance(double probability);
  void refused(const std::string& kind, const std::string& name, ErrorKind error,
               const std::string& message);
  void done(const std::string& kind, const std::string& name);
  void forget_lost_answers();
  void add_taken_names(Observed& observed) const;
  void check_leader_is_outlived(const Pod& going);

  const nlohmann::json* pod_group(const std::string& name) const override;

  std::string short_name(const nlohmann::json& pod) const;
  char letter(const std::string& revision) const;
  Pod& find(const std::string& short_name);
  void say(const std::string& text);

  nlohmann::json model_;
  std::vector<nlohmann::json> children_;
  View view_;
  std::vector<WriteFailure> failures_;
  std::optional<WallTime> status_written_;
  mutable std::string letters_of_;  // revisions in order of appearance, nine characters each
  std::vector<std::string> history_;
  std::vector<std::string> events_;
  std::vector<std::string> breaches_;
  std::string ready_said_;
  int wake_s_ = -1;
  int uids_ = 0;
  int writes_ = 0;
  int looks_ = 0;
  bool doubtful_ = false;  // a write was not answered
  bool cut_off_ = false;   // the rest of the plan under way is not carried out
};

}  // namespace dsm::plan
