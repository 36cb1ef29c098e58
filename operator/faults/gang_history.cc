#include "operator/faults/gang_history.h"

#include <algorithm>

#include "operator/faults/gang_promise.h"
#include "operator/faults/model_acts.h"
#include "operator/faults/pod_groups.h"
#include "operator/plan/children.h"

namespace dsm::faults {
namespace {

constexpr const char* kQueues[] = {"main", "spare"};
constexpr const char* kScheduler = "coscheduler";

runtime::ModelLoopOptions with_pod_groups() {
  runtime::ModelLoopOptions options = Replica::loop_options();
  options.coscheduling = true;
  return options;
}

class GangHistory {
 public:
  GangHistory(unsigned seed, plan::Harm harm)
      : stage_(seed, harm, with_pod_groups()),
        models_(stage_, [this] { return spec(); }),
        kueue_(stage_.server(), [this](const plan::SimulatedPod& pod) { evicted(pod); }),
        promise_(stage_.world, kueue_) {
    stage_.world.controllers = {[this] { kueue_.pass_second(); },
                                [this] { promise_.check_second(); }};
    stage_.world.also_happened = [this] {
      return std::ssize(stage_.server().objects().events(kube::kWorkloads));
    };
    if (stage_.one_in(2)) keys_.emplace_back("ns/other");
    if (stage_.one_in(2)) install_or_remove_pod_groups();
  }

  HistoryResult run() {
    return play(stage_, {.begin =
                             [this] {
                               for (const std::string& key : keys_) models_.make(key);
                             },
                         .every = 4,
                         .act = [this] { act(); },
                         .end = [this] { become_quiet(); }});
  }

 private:
  Json spec() {
    Json placement = Json::object();
    if (!stage_.one_in(4)) placement["queueName"] = kQueues[0];
    if (stage_.one_in(2)) placement["schedulerName"] = kScheduler;
    return {{"model", {{"uri", "image:///models/deepseek-tiny"}}},
            {"parallelism", {{"tensor", 2}}},
            {"placement", std::move(placement)},
            {"replicas", 2}};
  }

  void evicted(const plan::SimulatedPod& pod) {
    stage_.log("evict " + key_of(pod.object));
    if (plan::leads_standing_group(pod)) {
      stage_.world.took_a_group(plan::controller_uid(pod.object));
    }
  }

  void act() {
    if (stage_.one_in(2)) return act_on_the_cluster();
    const std::string& key = stage_.one_of(keys_);
    if (models_.there(key) != nullptr) act_on(key);
  }

  void act_on(const std::string& key) {
    switch (stage_.below(11)) {
      case 0:
      case 1:
        return models_.scale(key);
      case 2:
      case 3:
        return models_.change_image(key);
      case 4:
        return models_.pause_or_go_on(key);
      case 5:
        return models_.change_rollout(key);
      case 6:
        return models_.change_size(key);
      case 7:
        return models_.edit(key, {{"placement", {{"queueName", some_queue()}}}});
      case 8:
        return models_.edit(
            key,
            {{"placement", {{"schedulerName", stage_.one_in(2) ? Json(kScheduler) : Json()}}}});
      case 9:
        return models_.roll_back(key);
      default:
        return models_.scale_or_remove(key);
    }
  }

  Json some_queue() { return stage_.one_in(3) ? Json() : Json(stage_.one_of(kQueues)); }

  void act_on_the_cluster() {
    switch (stage_.below(stage_.world.harm ? 13 : 9)) {
      case 0:
      case 1:
        return change_quota();
      case 2:
        return preempt();
      case 3:
        return drain_or_fill_a_queue();
      case 4:
        return stop_kueue();
      case 5:
        return install_or_remove_pod_groups();
      case 6:
      case 7:
        return change_room();
      case 8:
        return stage_.troubles.empty_or_mend_a_node();
      default:
        return stage_.troubles.harm_a_pod();
    }
  }

  KueueController::Queue& queue(const std::string& name) { return kueue_.queues[name]; }

  // Often odd, so that groups do not come out even.
  void change_quota() {
    const std::string name = stage_.one_of(kQueues);
    queue(name).quota = stage_.one_in(3) ? 1000 : 2 + stage_.below(8);
    stage_.log("quota of " + name + " " + std::to_string(queue(name).quota));
  }

  void preempt() {
    const std::string name = stage_.one_of(kQueues);
    const int most = std::min(queue(name).quota, 9);
    queue(name).others = stage_.one_in(3) ? 0 : stage_.below(most + 1);
    queue(name).preempts = true;
    stage_.log("others take " + std::to_string(queue(name).others) + " of " + name);
  }

  void drain_or_fill_a_queue() {
    const std::string name = stage_.one_of(kQueues);
    queue(name).drained = stage_.one_in(3);
    stage_.log(name + (queue(name).drained ? " is drained" : " is open"));
  }

  void stop_kueue() {
    const int seconds = 2 + stage_.below(40);
    stage_.log("Kueue stands still for " + std::to_string(seconds) + " s");
    if (stage_.one_in(3)) return kueue_.stop_amid_an_admission(seconds);
    kueue_.stop(seconds, stage_.one_in(2));
  }

  void install_or_remove_pod_groups() {
    ApiServer& server = stage_.server();
    install_pod_groups(server, !has_pod_groups(server));
    stage_.log(has_pod_groups(server) ? "PodGroups are installed" : "PodGroups are removed");
  }

  void change_room() {
    int& room = stage_.server().kubelets().room;
    room = stage_.one_in(2) ? 1000 : 3 + stage_.below(8);
    stage_.log("room " + std::to_string(room));
  }

  // Each wants more than there is, and an odd room lets a part of a group in.
  void become_cramped() {
    stage_.server().kubelets().room = 3 + 2 * stage_.below(4);
    stage_.log("room " + std::to_string(stage_.server().kubelets().room));
    for (const std::string& key : keys_) {
      const Json* const model = stage_.server().objects().find(kube::kDeepSeekModels, key);
      if (model != nullptr) models_.edit(key, {{"replicas", 4}});
    }
    stage_.world.run(Seconds(900), Seconds(1));
  }

  void become_quiet() {
    World& world = stage_.world;
    stage_.end_faults();
    kueue_.go_on();
    for (const std::string& key : keys_) models_.end_edits(key);
    world.run(Seconds(60));  // whoever stands still goes on
    become_cramped();
    stage_.log("room for all");
    stage_.server().kubelets().room = 1000;
    for (auto& [name, queue] : kueue_.queues) queue = {};
    if (!stage_.rest("with room for all")) return;
    stage_.check_stillness();
    world.check_end();
    promise_.check_end();
    for (const std::string& key : keys_) {
      if (stage_.server().objects().find(kube::kDeepSeekModels, key) != nullptr) {
        models_.remove(key);
      }
    }
    if (!stage_.rest("without models")) return;
    promise_.check_gone();
    world.check_end();
  }

  Stage stage_;
  ModelActs models_;
  KueueController kueue_;
  GangPromise promise_;
  std::vector<std::string> keys_ = {"ns/m"};
};

}  // namespace

HistoryResult play_gang_history(unsigned seed, plan::Harm harm) {
  return GangHistory(seed, harm).run();
}

}  // namespace dsm::faults
