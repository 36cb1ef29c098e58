#include "operator/plan/random_history.h"

#include <algorithm>
#include <random>
#include <set>

#include "operator/plan/coscheduling.h"
#include "operator/plan/rollout_promise.h"
#include "operator/plan/simulate.h"
#include "operator/plan/simulate_json.h"

namespace dsm::plan {
namespace {

using nlohmann::json;

constexpr int kSeconds = 180;
// A look writes a few objects for each group; more in one second than this is a storm.
constexpr int kMostWritesInASecond = 80;
constexpr int kPodsPerGroup = 2;

json two_groups_of_two() {
  return {{"model", {{"uri", "image:///models/deepseek-tiny"}}},
          {"parallelism", {{"tensor", 2}}},
          {"placement", {{"schedulerName", "coscheduler"}}},
          {"replicas", 2}};
}

class RandomHistory {
 public:
  RandomHistory(unsigned seed, Harm harm, Sleep sleep)
      : random_(seed), harm_(harm == Harm::kPodsAndNodes), sleeps_(sleep == Sleep::kSometimes) {
    sim_.faults = {.random = &random_, .stall = 0.4, .lose = 0.08};
  }

  std::vector<std::string> run() {
    for (int i = 0; i < kSeconds; ++i) {
      if (below(6) == 0) act();
      second();
    }
    become_quiet();
    if (!breaches_.empty()) tell_history();
    return std::move(breaches_);
  }

 private:
  int below(int end) { return std::uniform_int_distribution<int>(0, end - 1)(random_); }

  void act() {
    if (sleeps_ && below(6) == 0) return edit({{"sleep", below(2) == 0}});
    switch (below(harm_ ? 15 : 10)) {
      case 0:
        return edit({{"replicas", below(5)}});
      case 1:
      case 2:
        return edit({{"image", "worker:" + std::to_string(1 + below(4))}});
      case 3:
        return edit({{"rollout", {{"paused", below(2) == 0}}}});
      case 4: {
        const int surge = below(3);
        const int unavailable = surge == 0 ? 1 : below(2);
        return edit({{"rollout", {{"maxSurge", surge}, {"maxUnavailable", unavailable}}}});
      }
      case 5:
        return cordon_or_mend();
      case 6:
        // Often odd, so that it lets a part of a group in.
        sim_.quota = below(2) == 0 ? 1000 : 3 + below(8);
        return log("quota " + std::to_string(sim_.quota));
      case 7:
        return edit({{"parallelism", {{"tensor", below(2) == 0 ? 3 : 2}}}});
      case 8:
        return install_or_remove_pod_groups();
      case 9:
        return drain_or_not();
      default:
        return harm_a_pod();
    }
  }

  void log(const std::string& what) { log_.push_back(std::to_string(sim_.now_s()) + "s " + what); }

  void edit(const json& patch) {
    log(patch.dump());
    sim_.edit(patch);
  }

  void cordon_or_mend() {
    const std::string pod = some_pod();
    if (pod.empty() || below(2) == 0) return sim_.mend_nodes();
    const std::string node = sim_.pod(pod)["spec"]["nodeName"];
    log("cordon " + node);
    sim_.cordon(node);
  }

  void drain_or_not() {
    const std::string pod = some_pod();
    if (pod.empty()) return;
    const std::string group = pod.substr(0, pod.find('.'));
    const bool asked = below(3) > 0;
    log((asked ? "drain " : "do not drain ") + group);
    sim_.drain(group, asked);
  }

  void install_or_remove_pod_groups() {
    log(sim_.pod_groups ? "PodGroups are removed" : "PodGroups are installed");
    sim_.install_pod_groups(!sim_.pod_groups);
  }

  // Each group whose pods name a PodGroup has it, and no other is left.
  void check_pod_groups() {
    std::set<std::string> named;
    for (const std::string& pod : sim_.pods()) {
      const std::string name = label(sim_.pod(pod), kPodGroupLabel);
      if (!name.empty() && sim_.pod_groups) named.insert(name);
    }
    const auto there = sim_.children("PodGroup");
    if (!std::ranges::equal(named, there)) breach("a PodGroup has no group, or a group none");
  }

  void harm_a_pod() {
    const std::string pod = some_pod();
    if (pod.empty()) return;
    log("harm " + pod);
    switch (below(4)) {
      case 0:
        return sim_.remove_pod(pod);
      case 1:
        return sim_.fail_pod(pod);
      case 2:
        return sim_.crash_pod(pod);
      default:
        return sim_.lose_node(pod);
    }
  }

  // One that runs and stays; "" when there is none.
  std::string some_pod() {
    std::vector<std::string> running;
    for (const std::string& name : sim_.pods()) {
      const json& pod = sim_.pod(name);
      if (pod["metadata"].contains("deletionTimestamp")) continue;
      if (pod["status"]["phase"] == "Running") running.push_back(name);
    }
    return running.empty()
               ? ""
               : running[static_cast<std::size_t>(below(static_cast<int>(running.size())))];
  }

  int number(const json& from, const char* name, int otherwise) const {
    return from.is_object() ? from.value(name, otherwise) : otherwise;
  }
  int groups() const {
    std::set<std::string> names;
    for (const std::string& pod : sim_.pods()) names.insert(pod.substr(0, pod.find('.')));
    return static_cast<int>(names.size());
  }

  void second() {
    const int writes = sim_.writes();
    sim_.run(1);
    // A group on a dead node counts for nothing: it neither ends nor serves.
    const int standing =
        static_cast<int>(std::ranges::count_if(sim_.all_pods(), leads_standing_group));
    for (const std::string& broken : promise_.check(sim_.model(), groups(), standing)) {
      if (!harm_) breach(broken);
    }
    if (sim_.writes() - writes > kMostWritesInASecond) {
      breach(std::to_string(sim_.writes() - writes) + " writes in one second");
    }
  }

  void become_quiet() {
    sim_.faults = {};
    sim_.mend_nodes();
    sim_.quota = 1000;
    sim_.edit(
        {{"rollout", {{"paused", false}}}, {"parallelism", {{"tensor", 2}}}, {"sleep", false}});
    if (!sim_.settle(8000)) return breach("it does not come to rest");
    sim_.run(1500);  // restarts are forgotten meanwhile
    const int writes = sim_.writes();
    sim_.run(600);
    if (sim_.writes() != writes) breach("it writes although nothing changes");
    check_end();
  }

  void check_end() {
    const int replicas = number(sim_.spec(), "replicas", 1);
    const std::string wanted = replicas == 0 ? "True/ScaledToZero" : "True/AllGroupsReady";
    if (sim_.condition("Ready") != wanted) breach("Ready is " + sim_.condition("Ready"));
    if (sim_.ready_groups() != replicas) breach("not all groups are ready");
    if (static_cast<int>(sim_.pods().size()) != replicas * kPodsPerGroup) {
      breach(std::to_string(sim_.pods().size()) + " pods are left");
    }
    if (static_cast<int>(sim_.children("PodDisruptionBudget").size()) != replicas) {
      breach("a disruption budget has no group, or a group none");
    }
    check_pod_groups();
    if (sim_.children("ControllerRevision").size() > 6) breach("old revisions pile up");
    if (sim_.children("Service").size() != 2 || sim_.children("Secret").size() != 1) {
      breach("a child is missing or was made twice");
    }
    for (const char* condition : {"Progressing", "Degraded", "Stalled"}) {
      if (sim_.condition(condition) != "False/AsWanted") {
        breach(std::string(condition) + " is " + sim_.condition(condition));
      }
    }
  }

  void tell_history() {
    for (const std::string& line : log_) breaches_.push_back(line);
    for (const std::string& line : sim_.history()) breaches_.push_back(line);
  }

  void breach(const std::string& what) {
    breaches_.push_back(std::to_string(sim_.now_s()) + "s: " + what);
  }

  std::mt19937 random_;
  const bool harm_;
  const bool sleeps_;
  Simulation sim_{two_groups_of_two()};
  RolloutPromise promise_;
  std::vector<std::string> log_;  // what the user did
  std::vector<std::string> breaches_;
};

}  // namespace

std::vector<std::string> breaches_of_history(unsigned seed, Harm harm, Sleep sleep) {
  return RandomHistory(seed, harm, sleep).run();
}

}  // namespace dsm::plan
