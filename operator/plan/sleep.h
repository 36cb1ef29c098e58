// Groups that sleep because spec.sleep is true, and groups on their way back. Private to
// operator/plan but for wants_sleep().
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>

#include "operator/plan/groups.h"

namespace dsm::plan {

// Also of a spec that is wrong otherwise: what has been told is not taken back for that.
bool wants_sleep(const nlohmann::json& model);

// That a leader sleeps, or ends its requests before it does.
std::optional<Cause> sleep_cause(const LeaderStatus& leader);
// What a group that slept when it was looked at last is now, when nothing is the matter with its
// pods: asleep as long as its leader is silent, waking until it answers. `before` may be null.
std::optional<Cause> slept_cause(const LeaderStatus* leader, const api::GroupStatus* before);

// It sleeps, or is about to.
bool sleeps(const Cause& cause);
// A group that sleeps or wakes is not one that is lost.
bool rests(const Cause& cause);
// The same of what was said of a group.
bool rested(const api::GroupStatus& before);

}  // namespace dsm::plan
