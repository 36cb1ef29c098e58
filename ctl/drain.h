// A group that is asked to go elsewhere, and how far it is. Pure.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "operator/api/status.h"

namespace dsm::ctl {

struct GroupPods {
  std::string name;                  // <model>-<revision>-<number>
  std::vector<nlohmann::json> pods;  // in the order of their ranks
};

// `group`: its number, or "<revision>-<number>", or its whole name. kNotFound and kInvalid (groups
// of two revisions have the number) say which there are.
Result<GroupPods> choose_group(const nlohmann::json& model, const std::vector<nlohmann::json>& pods,
                               const std::string& group);

// The merge patch of a pod that asks its group to go, or takes that back. It meets this pod and not
// another one of the name.
nlohmann::json drain_patch(const nlohmann::json& pod, bool asked, WallTime now);
bool is_asked_to_go(const GroupPods& group);

// What the operator says of a group that shall go: why it cannot, or else how it is.
std::string drain_state(const api::ModelStatus& status, const std::string& group);

}  // namespace dsm::ctl
