#include "operator/plan/sleep.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "operator/api/reasons.h"

namespace dsm::plan {
namespace {

constexpr std::array kRest = {api::kFallingAsleep, api::kAsleep, api::kWaking};

}  // namespace

bool wants_sleep(const nlohmann::json& model) {
  const nlohmann::json::json_pointer field("/spec/sleep");
  return model.contains(field) && model.at(field) == nlohmann::json(true);
}

std::optional<Cause> sleep_cause(const LeaderStatus& leader) {
  if (leader.phase != "Asleep") return std::nullopt;
  const bool all = leader.reason == api::kAsleep;
  return Cause{"Asleep", all ? api::kAsleep : api::kFallingAsleep, leader.message, false};
}

std::optional<Cause> slept_cause(const LeaderStatus* leader, const api::GroupStatus* before) {
  if (before == nullptr || !rested(*before)) return std::nullopt;
  if (leader == nullptr) {
    const auto said = std::ranges::find(kRest, before->reason);
    return Cause{before->phase, *said, before->message, false};
  }
  const bool meets = leader->phase == "Rendezvous" || leader->phase == "Ready";
  if (!meets || leader->told_to_sleep) return std::nullopt;
  return Cause{"Starting", api::kWaking, "it wakes: " + leader->message, false};
}

bool sleeps(const Cause& cause) {
  return cause.reason == api::kFallingAsleep || cause.reason == api::kAsleep;
}

bool rests(const Cause& cause) {
  return sleeps(cause) || cause.reason == api::kWaking;
}

bool rested(const api::GroupStatus& before) {
  return std::ranges::find(kRest, before.reason) != kRest.end();
}

}  // namespace dsm::plan
