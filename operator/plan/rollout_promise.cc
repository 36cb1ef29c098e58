#include "operator/plan/rollout_promise.h"

#include <algorithm>

namespace dsm::plan {
namespace {

using nlohmann::json;

int number(const json& from, const char* name, int otherwise) {
  return from.is_object() ? from.value(name, otherwise) : otherwise;
}

}  // namespace

int groups_asked_for(const json& spec) {
  const int replicas = number(spec, "replicas", 1);
  const json scaling = spec.value("scaling", json());
  if (!scaling.is_object() || !scaling.contains("maxReplicas")) return replicas;
  return std::clamp(replicas, number(scaling, "minReplicas", 1), number(scaling, "maxReplicas", 1));
}

std::vector<std::string> RolloutPromise::check(const json& model, int groups, int ready) {
  const json& spec = model["spec"];
  static const json kNone = json::object();
  const json& status = model.contains("status") ? model["status"] : kNone;
  const json& rollout = spec.contains("rollout") ? spec["rollout"] : kNone;
  const int replicas = groups_asked_for(spec);
  const int least = std::max(0, replicas - number(rollout, "maxUnavailable", 0));
  // What a wrong spec says of the rollout does not count.
  const int most = replicas + std::max(1, number(rollout, "maxSurge", 1));
  const bool seen =
      status.value("observedGeneration", 0L) == model["metadata"]["generation"].get<long>();
  floor_ = std::min(floor_, least);
  ceiling_ = std::max(ceiling_, most);
  // A group that has just become ready counts when the operator has seen it.
  const int said = number(status, "readyReplicas", 0);
  if (seen && std::min(said, ready) >= replicas) floor_ = least;
  if (seen && groups <= most) ceiling_ = most;
  std::vector<std::string> broken;
  if (ready < floor_) {
    broken.push_back("only " + std::to_string(ready) + " groups are ready, not " +
                     std::to_string(floor_));
  }
  if (groups > ceiling_) {
    broken.push_back(std::to_string(groups) + " groups exist, not " + std::to_string(ceiling_));
  }
  return broken;
}

void RolloutPromise::take_one() {
  floor_ = std::max(0, floor_ - 1);
}

void RolloutPromise::excuse() {
  floor_ = 0;
  ceiling_ = kNoCeiling;
}

}  // namespace dsm::plan
