#include "operator/faults/model_acts.h"

namespace dsm::faults {
namespace {

std::string name_of(const std::string& key) {
  return key.substr(key.find('/') + 1);
}

}  // namespace

void ModelActs::make(const std::string& key) {
  stage_.log("make " + name_of(key));
  stage_.server().make_model(key.substr(0, key.find('/')), name_of(key), spec_());
}

void ModelActs::edit(const std::string& key, const Json& patch) {
  stage_.log(name_of(key) + " " + patch.dump());
  const Json* const model = stage_.server().objects().find(kube::kDeepSeekModels, key);
  before_[key] = model->at("spec");
  stage_.server().edit_model(key, patch);
}

void ModelActs::remove(const std::string& key) {
  const bool foreground = stage_.one_in(2);
  stage_.log(std::string(foreground ? "delete in the foreground " : "delete ") + name_of(key));
  before_.erase(key);
  stage_.server().delete_model(key, foreground);
}

void ModelActs::change_image(const std::string& key) {
  edit(key, {{"image", "worker:" + std::to_string(1 + stage_.below(4))}});
}

void ModelActs::pause_or_go_on(const std::string& key) {
  edit(key, {{"rollout", {{"paused", stage_.one_in(2)}}}});
}

void ModelActs::change_rollout(const std::string& key) {
  const int surge = stage_.below(3);
  const int unavailable = surge == 0 ? 1 : stage_.below(2);
  edit(key, {{"rollout", {{"maxSurge", surge}, {"maxUnavailable", unavailable}}}});
}

void ModelActs::change_size(const std::string& key) {
  edit(key, {{"parallelism", {{"tensor", stage_.one_in(2) ? 3 : 2}}}});
}

void ModelActs::bound(const std::string& key) {
  if (stage_.one_in(3)) return edit(key, {{"scaling", nullptr}});
  const int least = 1 + stage_.below(2);
  edit(key, {{"scaling", {{"minReplicas", least}, {"maxReplicas", least + stage_.below(3)}}}});
}

void ModelActs::roll_back(const std::string& key) {
  const auto before = before_.find(key);
  if (before == before_.end()) return;
  Json patch = before->second;
  const Json* const model = stage_.server().objects().find(kube::kDeepSeekModels, key);
  for (const auto& [field, value] : model->at("spec").items()) {
    if (!patch.contains(field)) patch[field] = nullptr;
  }
  edit(key, patch);
}

void ModelActs::scale_or_remove(const std::string& key) {
  if (!stage_.one_in(3)) return edit(key, {{"replicas", 1 + stage_.below(3)}});
  remove(key);
}

const Json* ModelActs::there(const std::string& key) {
  const Json* const model = stage_.server().objects().find(kube::kDeepSeekModels, key);
  if (model == nullptr) make(key);
  const bool goes = model != nullptr && model->at("metadata").contains("deletionTimestamp");
  return goes ? nullptr : model;
}

void ModelActs::end_edits(const std::string& key, const Json& also) {
  Json patch = {{"rollout", {{"paused", false}}}, {"parallelism", {{"tensor", 2}}}};
  patch.merge_patch(also);
  stage_.server().edit_model(key, patch);
}

}  // namespace dsm::faults
