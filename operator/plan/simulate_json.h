// How the simulated cluster reads and writes its objects. Private to the simulation.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/clock.h"

namespace dsm::plan {

// "" without it. No copy, since every second each pod is compared with every other.
inline const std::string& label(const nlohmann::json& pod, std::string_view key) {
  static const std::string kNone;
  const nlohmann::json& labels = pod["metadata"]["labels"];
  const auto at = labels.find(key);
  return at == labels.end() ? kNone : at->get_ref<const std::string&>();
}

inline bool deleted(const nlohmann::json& pod) {
  return pod["metadata"].contains("deletionTimestamp");
}

inline bool has_ended(const nlohmann::json& pod) {
  const nlohmann::json& phase = pod["status"]["phase"];
  return phase == "Failed" || phase == "Succeeded";
}

inline void set_condition(nlohmann::json& pod, const char* type, bool is, const std::string& reason,
                          const std::string& message, WallTime now) {
  nlohmann::json& conditions = pod["status"]["conditions"];
  nlohmann::json next = {{"type", type}, {"status", is ? "True" : "False"}};
  if (!reason.empty()) next["reason"] = reason;
  if (!message.empty()) next["message"] = message;
  for (nlohmann::json& condition : conditions) {
    if (condition["type"] != type) continue;
    const bool same = condition["status"] == next["status"];
    next["lastTransitionTime"] =
        same ? condition["lastTransitionTime"] : nlohmann::json(to_rfc3339(now));
    condition = std::move(next);
    return;
  }
  next["lastTransitionTime"] = to_rfc3339(now);
  conditions.push_back(std::move(next));
}

inline bool is_ready(const nlohmann::json& pod) {
  const nlohmann::json& status = pod["status"];
  const auto conditions = status.find("conditions");
  if (conditions == status.end()) return false;
  for (const nlohmann::json& condition : *conditions) {
    if (condition["type"] == "Ready") return condition["status"] == "True";
  }
  return false;
}

}  // namespace dsm::plan
