// What users do with models of a history, each said in it. Models are named by their key,
// "namespace/name". For tests; single-threaded.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "operator/faults/stage.h"

namespace dsm::faults {

class ModelActs {
 public:
  using Act = std::function<void(const std::string& key)>;

  // `spec` is that of a model that is made. Both must outlive it.
  ModelActs(Stage& stage, std::function<Json()> spec) : stage_(stage), spec_(std::move(spec)) {}

  void make(const std::string& key);
  void edit(const std::string& key, const Json& patch);
  void remove(const std::string& key);  // in the background or in the foreground

  void scale(const std::string& key) { edit(key, {{"replicas", stage_.below(4)}}); }
  void change_image(const std::string& key);
  void pause_or_go_on(const std::string& key);
  void change_rollout(const std::string& key);
  void change_size(const std::string& key);
  void bound(const std::string& key);
  // To the spec before the last edit, whatever was added since.
  void roll_back(const std::string& key);
  void scale_or_remove(const std::string& key);

  // The model that an act may be about; one that is not there is made, and nullptr returned, and
  // so is for one that is going.
  const Json* there(const std::string& key);
  // As at the end of a history: its rollout goes on, and its groups are of two.
  void end_edits(const std::string& key, const Json& also = Json::object());

 private:
  Stage& stage_;
  const std::function<Json()> spec_;
  std::map<std::string, Json> before_;  // specs before the last edit
};

}  // namespace dsm::faults
