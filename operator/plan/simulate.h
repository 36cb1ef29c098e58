// Loops plan() against a small model of the API server, scheduler, kubelet and workers, one second
// at a time, so that a test asserts a whole history as a table. Like the runtime it looks only when
// something changed or the time asked for has come, so a forgotten requeue_after shows as a history
// that stands still.
//
// A history has a line for each second in which pods were written or the Ready condition changed:
//
//   "0s Ready=Unknown/FirstVisit"
//   "1s +A0.0 +A0.1"            pods 0 and 1 of group 0 of the first revision are made
//   "9s -A0.0 Ready=False/..."  the leader of that group is deleted
//
// Revisions are lettered in the order in which they appear. For tests; single-threaded.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "operator/plan/plan.h"

namespace dsm::plan {

class Simulation {
 public:
  explicit Simulation(nlohmann::json spec);

  // What the world is like; may be changed at any time.
  int room = 1000;                   // pods that fit on the nodes
  int quota = 1000;                  // pods that the API server lets in
  int drain_s = 3;                   // a leader's time from SIGTERM to its end
  int load_s = 2;                    // a rank's time from its start to having its weights
  std::string bad_image;             // pods of it crash a second after their start
  std::set<std::string> foreign;     // "Kind/name" that somebody else has
  std::map<std::string, long> work;  // requests of a leader, by its short name ("A0.0")
  Config config{.worker_image = "worker:1"};
  MetricsApi metrics_api{MetricsApi::State::kOurs, ""};

  // What a user does.
  void edit(const nlohmann::json& merge_patch);  // of the spec
  void scale(int replicas) { edit({{"replicas", replicas}}); }
  void remove_pod(const std::string& short_name);  // kubectl delete pod
  void fail_pod(const std::string& short_name);    // evicted
  void crash_pod(const std::string& short_name);   // its container dies once
  void lose_node(const std::string& short_name);   // its node stops answering; the pod is evicted
  void drift(const std::string& service, const nlohmann::json& merge_patch);  // kubectl patch
  void delete_model();

  void run(int seconds);
  // Until nothing was written for 20 s; false after `most` seconds of unrest.
  bool settle(int most = 600);

  const std::vector<std::string>& history() const { return history_; }
  void forget_history() { history_.clear(); }
  int now_s() const { return now_s_; }
  int writes() const { return writes_; }
  const nlohmann::json& status() const { return model_["status"]; }
  // "True/AllGroupsReady"
  std::string condition(const std::string& type) const;
  std::string message(const std::string& type) const;
  std::vector<std::string> pods() const;  // short names, sorted
  const nlohmann::json& pod(const std::string& short_name) const;
  const std::vector<nlohmann::json>& children() const { return children_; }
  const std::vector<std::string>& events() const { return events_; }  // reasons, in order
  int looks() const { return looks_; }

  // Held in every second; a sentence for each breach.
  const std::vector<std::string>& breaches() const { return breaches_; }
  int least_ready = 0;  // breach when fewer groups are ready

 private:
  struct Pod {
    nlohmann::json object;
    int started = -1;   // second in which the container started; -1: it does not run
    int ends = -1;      // second in which a deleted pod is gone
    int back_at = -1;   // second in which a crashed container starts again
    bool lost = false;  // on a node that does not answer
  };

  void step();
  void look();
  void carry_out(const Plan& plan);
  void live();
  void schedule(Pod& pod, int& used);
  void start_or_crash(Pod& pod);
  bool group_loaded(const Pod& pod) const;
  void delete_pod(Pod& pod, int grace_s);
  std::string short_name(const nlohmann::json& pod) const;
  char letter(const std::string& revision) const;
  Pod& find(const std::string& short_name);
  int ready_groups() const;
  void say(const std::string& text);
  WallTime now() const;

  nlohmann::json model_;
  std::vector<Pod> pods_;
  std::vector<nlohmann::json> children_;
  std::vector<WriteFailure> failures_;
  std::optional<WallTime> status_written_;
  mutable std::string letters_of_;  // revisions in order of appearance, nine characters each
  std::vector<std::string> history_;
  std::vector<std::string> events_;
  std::vector<std::string> breaches_;
  std::string ready_said_;
  int now_s_ = 0;
  int wake_s_ = -1;
  int uids_ = 0;
  int writes_ = 0;
  int looks_ = 0;
  bool dirty_ = true;
};

}  // namespace dsm::plan
