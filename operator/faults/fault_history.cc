#include "operator/faults/fault_history.h"

#include <algorithm>
#include <random>

#include "operator/faults/troubles.h"

namespace dsm::faults {
namespace {

constexpr int kSeconds = 150;
constexpr const char* kNamespace = "ns";

Json two_groups_of_two() {
  return {{"model", {{"uri", "image:///models/deepseek-tiny"}}},
          {"parallelism", {{"tensor", 2}}},
          {"replicas", 2}};
}

class FaultHistory {
 public:
  FaultHistory(unsigned seed, plan::Harm harm, plan::Sleep sleep)
      : random_(seed),
        sleeps_(sleep == plan::Sleep::kSometimes),
        faults_(random_),
        world_(faults_),
        troubles_(world_, faults_, [this](const std::string& what) { log(what); }) {
    world_.harm = harm == plan::Harm::kPodsAndNodes;
    names_.push_back("m");
    if (faults_.below(3) == 0) names_.push_back("other");
  }

  HistoryResult run() {
    for (const std::string& name : names_) make(name);
    for (int i = 0; i < kSeconds; ++i) {
      if (faults_.below(5) == 0) act();
      if (faults_.below(25) == 0) troubles_.trouble_an_operator();
      world_.run(Seconds(1));
    }
    become_quiet();
    HistoryResult result{world_.breaches(), static_cast<int>(world_.now_s()), world_.writes(),
                         world_.late_writes(), world_.most_writes()};
    if (!result.breaches.empty()) {
      result.breaches.insert(result.breaches.end(), log_.begin(), log_.end());
    }
    return result;
  }

 private:
  ApiServer& server() { return world_.server(); }
  void log(const std::string& what) {
    log_.push_back("  " + std::to_string(world_.now_s()) + "s " + what);
  }
  static std::string key(const std::string& name) { return std::string(kNamespace) + "/" + name; }

  void make(const std::string& name) {
    log("make " + name);
    server().make_model(kNamespace, name, two_groups_of_two());
  }

  void act() {
    const std::string name =
        names_[static_cast<std::size_t>(faults_.below(static_cast<int>(names_.size())))];
    const Json* const model = server().objects().find(kube::kDeepSeekModels, key(name));
    if (model == nullptr) return make(name);
    if (model->at("metadata").contains("deletionTimestamp")) return;
    if (sleeps_ && faults_.below(6) == 0) {
      return edit(name, {{"sleep", faults_.below(2) == 0}});
    }
    switch (faults_.below(world_.harm ? 17 : 12)) {
      case 0:
        return edit(name, {{"replicas", faults_.below(4)}});
      case 1:
      case 2:
        return edit(name, {{"image", "worker:" + std::to_string(1 + faults_.below(4))}});
      case 3:
        return edit(name, {{"rollout", {{"paused", faults_.below(2) == 0}}}});
      case 4: {
        const int surge = faults_.below(3);
        const int unavailable = surge == 0 ? 1 : faults_.below(2);
        return edit(name, {{"rollout", {{"maxSurge", surge}, {"maxUnavailable", unavailable}}}});
      }
      case 5:
      case 6:
        return troubles_.empty_or_mend_a_node();
      case 7:
        // Often odd, so that it lets a part of a group in.
        server().quota = faults_.below(2) == 0 ? 1000 : 3 + faults_.below(8);
        return log("quota " + std::to_string(server().quota));
      case 8:
        return edit(name, {{"parallelism", {{"tensor", faults_.below(2) == 0 ? 3 : 2}}}});
      case 9:
        return bound(name);
      case 10:
        return roll_back(name);
      case 11:
        if (faults_.below(3) != 0) return edit(name, {{"replicas", 1 + faults_.below(3)}});
        return remove(name);
      default:
        return troubles_.harm_a_pod();
    }
  }

  void edit(const std::string& name, const Json& patch) {
    log(name + " " + patch.dump());
    const Json* const model = server().objects().find(kube::kDeepSeekModels, key(name));
    before_[name] = model->at("spec");
    server().edit_model(key(name), patch);
  }

  void bound(const std::string& name) {
    if (faults_.below(3) == 0) return edit(name, {{"scaling", nullptr}});
    const int least = 1 + faults_.below(2);
    edit(name, {{"scaling", {{"minReplicas", least}, {"maxReplicas", least + faults_.below(3)}}}});
  }

  // To the spec before the last edit, whatever was added since.
  void roll_back(const std::string& name) {
    const auto before = before_.find(name);
    if (before == before_.end()) return;
    Json patch = before->second;
    const Json* const model = server().objects().find(kube::kDeepSeekModels, key(name));
    for (const auto& [field, value] : model->at("spec").items()) {
      if (!patch.contains(field)) patch[field] = nullptr;
    }
    edit(name, patch);
  }

  void remove(const std::string& name) {
    const bool foreground = faults_.below(2) == 0;
    log(std::string(foreground ? "delete in the foreground " : "delete ") + name);
    before_.erase(name);
    server().delete_model(key(name), foreground);
  }

  void become_quiet() {
    log("quiet");
    faults_.end();
    server().quota = 1000;
    server().kubelets().mend_nodes();
    for (const std::string& name : names_) {
      server().edit_model(
          key(name),
          {{"rollout", {{"paused", false}}}, {"parallelism", {{"tensor", 2}}}, {"sleep", false}});
    }
    world_.run(Seconds(60));  // whoever stands still goes on
    if (!world_.settle(Seconds(8'000))) return world_.breach("it does not come to rest");
    world_.run(Seconds(1'500), Seconds(5));  // restarts are forgotten meanwhile
    const int writes = world_.writes();
    world_.run(Seconds(600), Seconds(5));
    if (world_.writes() != writes) world_.breach("it writes although nothing changes");
    world_.check_end();
  }

  std::mt19937 random_;
  const bool sleeps_;
  RandomFaults faults_;
  World world_;
  Troubles troubles_;
  std::vector<std::string> names_;
  std::map<std::string, Json> before_;  // specs before the last edit
  std::vector<std::string> log_;
};

}  // namespace

HistoryResult play_history(unsigned seed, plan::Harm harm, plan::Sleep sleep) {
  return FaultHistory(seed, harm, sleep).run();
}

}  // namespace dsm::faults
