#include "operator/faults/fault_history.h"

#include "operator/faults/model_acts.h"

namespace dsm::faults {
namespace {

Json two_groups_of_two() {
  return {{"model", {{"uri", "image:///models/deepseek-tiny"}}},
          {"parallelism", {{"tensor", 2}}},
          {"replicas", 2}};
}

// Often odd, so that it lets a part of a group in.
void change_quota(Stage& stage) {
  stage.server().quota = stage.one_in(2) ? 1000 : 3 + stage.below(8);
  stage.log("quota " + std::to_string(stage.server().quota));
}

}  // namespace

HistoryResult play_history(unsigned seed, plan::Harm harm, plan::Sleep sleep) {
  Stage stage(seed, harm);
  ModelActs models(stage, two_groups_of_two);
  std::vector<std::string> keys = {"ns/m"};
  if (stage.one_in(3)) keys.emplace_back("ns/other");
  const auto node = [&](const std::string&) { stage.troubles.empty_or_mend_a_node(); };
  std::vector<ModelActs::Act> acts = {std::bind_front(&ModelActs::scale, &models),
                                      std::bind_front(&ModelActs::change_image, &models),
                                      std::bind_front(&ModelActs::change_image, &models),
                                      std::bind_front(&ModelActs::pause_or_go_on, &models),
                                      std::bind_front(&ModelActs::change_rollout, &models),
                                      node,
                                      node,
                                      [&](const std::string&) { change_quota(stage); },
                                      std::bind_front(&ModelActs::change_size, &models),
                                      std::bind_front(&ModelActs::bound, &models),
                                      std::bind_front(&ModelActs::roll_back, &models),
                                      std::bind_front(&ModelActs::scale_or_remove, &models)};
  if (stage.world.harm) {
    acts.insert(acts.end(), 5, [&](const std::string&) { stage.troubles.harm_a_pod(); });
  }
  History history;
  history.begin = [&] {
    for (const std::string& key : keys) models.make(key);
  };
  history.act = [&] {
    const std::string& key = stage.one_of(keys);
    if (models.there(key) == nullptr) return;
    if (sleep == plan::Sleep::kSometimes && stage.one_in(6)) {
      return models.edit(key, {{"sleep", stage.one_in(2)}});
    }
    stage.one_of(acts)(key);
  };
  history.end = [&] {
    stage.end_faults();
    stage.server().quota = 1000;
    for (const std::string& key : keys) models.end_edits(key, {{"sleep", false}});
    stage.world.run(Seconds(60));  // whoever stands still goes on
    if (!stage.rest("at last")) return;
    stage.check_stillness();
    stage.world.check_end();
  };
  return play(stage, history);
}

}  // namespace dsm::faults
