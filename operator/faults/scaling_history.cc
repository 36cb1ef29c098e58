#include "operator/faults/scaling_history.h"

#include <algorithm>

#include "operator/api/names.h"
#include "operator/faults/hpa_controller.h"
#include "operator/faults/load_promise.h"
#include "operator/faults/model_acts.h"

namespace dsm::faults {
namespace {

constexpr int kEach = 5;  // requests that wait for each group
constexpr int kMost = 4;  // groups

class ScalingHistory {
 public:
  ScalingHistory(unsigned seed, plan::Harm harm)
      : stage_(seed, harm),
        models_(stage_, [this] { return spec(); }),
        load_(stage_.world),
        hpa_(stage_.server(),
             {.ask = [this](const auto& model, const auto& metric) { return ask(model, metric); },
              .scales =
                  [this](const auto& model, int from, int to) {
                    stage_.log("the autoscaler of " + model + " goes from " + std::to_string(from) +
                               " to " + std::to_string(to));
                  }}) {
    stage_.world.controllers = {[this] { load_.pass_second(); }, [this] { hpa_.pass_second(); }};
    stage_.world.also_happened = [this] { return hpa_.said(); };
    if (stage_.one_in(3)) keys_.emplace_back("ns/other");
  }

  HistoryResult run() {
    return play(stage_, {.begin =
                             [this] {
                               for (const std::string& key : keys_) {
                                 models_.make(key);
                                 load_.waiting[key] = kEach;
                               }
                             },
                         .seconds = 240,
                         .every = 5,
                         .act = [this] { act(); },
                         .end = [this] { become_quiet(); }});
  }

 private:
  Json spec() {
    return {{"model", {{"uri", "image:///models/deepseek-tiny"}}},
            {"parallelism", {{"tensor", 2}}},
            {"scaling", bounds()},
            {"replicas", 1 + stage_.below(2)}};
  }

  Json bounds() {
    const int least = 1 + stage_.below(2);
    Json scaling = {{"minReplicas", least},
                    {"maxReplicas", least + stage_.below(1 + kMost - least)},
                    {"queueDepth", kEach},
                    {"scaleDownWindowSeconds", 15 * (1 + stage_.below(4))}};
    return scaling;
  }

  // One of the operators that serve, as a Service would choose it.
  Result<double> ask(const std::string& model, const std::string& metric) {
    Replica& replica = stage_.world.replica(stage_.below(World::kOperators));
    auto said = replica.number(model, metric);
    if (said && metric == api::kQueueDepthMetric) load_.check(replica.identity(), model, *said);
    return said;
  }

  void act() {
    const std::string& key = stage_.one_of(keys_);
    if (models_.there(key) == nullptr) return;
    switch (stage_.below(stage_.world.harm ? 14 : 11)) {
      case 0:
      case 1:
      case 2:
        load_.waiting[key] = stage_.below(kEach * (kMost + 1));
        return stage_.log(std::to_string(load_.waiting[key]) + " requests wait for " + key);
      case 3:
        return models_.scale(key);
      case 4:
      case 5:
        return models_.change_image(key);
      case 6:
        return models_.change_rollout(key);
      case 7:
        return models_.edit(key, {{"scaling", stage_.one_in(4) ? Json() : bounds()}});
      case 8:
        return stage_.troubles.empty_or_mend_a_node();
      case 9:
        return models_.pause_or_go_on(key);
      case 10:
        return models_.scale_or_remove(key);
      default:
        return stage_.troubles.harm_a_pod();
    }
  }

  void become_quiet() {
    stage_.end_faults();
    for (const std::string& key : keys_) {
      models_.end_edits(key);
      load_.waiting[key] = kEach * (1 + stage_.below(kMost));
    }
    stage_.world.run(Seconds(60));  // whoever stands still goes on
    if (!stage_.rest("at last")) return;
    stage_.check_stillness();
    stage_.world.check_end();
    for (const std::string& key : keys_) check_replicas(key);
  }

  void check_replicas(const std::string& key) {
    const Json* const model = stage_.server().objects().find(kube::kDeepSeekModels, key);
    if (model == nullptr) return;
    const Json scaling = (*model)["spec"].value("scaling", Json());
    const int replicas = (*model)["spec"]["replicas"];
    if (!scaling.is_object() || replicas == 0) return;
    const int wanted =
        std::clamp(static_cast<int>(load_.waiting[key]) / kEach, scaling["minReplicas"].get<int>(),
                   scaling["maxReplicas"].get<int>());
    if (replicas == wanted) return;
    stage_.world.breach(key + " has " + std::to_string(replicas) + " replicas, its load asks for " +
                        std::to_string(wanted));
  }

  Stage stage_;
  ModelActs models_;
  LoadPromise load_;
  HpaController hpa_;
  std::vector<std::string> keys_ = {"ns/m"};
};

}  // namespace

HistoryResult play_scaling_history(unsigned seed, plan::Harm harm) {
  return ScalingHistory(seed, harm).run();
}

}  // namespace dsm::faults
