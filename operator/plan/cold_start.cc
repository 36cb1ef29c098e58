#include "operator/plan/cold_start.h"

#include <algorithm>
#include <cstdlib>
#include <optional>

#include "operator/plan/sleep.h"

namespace dsm::plan {
namespace {

// Or slept: how long that was is no part of a start.
bool served_before(const api::ModelStatus& before, const Group& group) {
  const auto said = std::ranges::find(before.groups, group.name, &api::GroupStatus::name);
  return said != before.groups.end() && (said->served || rested(*said));
}

// Seconds from the first pod's creation to the last one's readiness. Nothing when containers ended
// on the way: that is a fault, and not how long a start takes.
std::optional<int> measure(const Group& group) {
  if (group.pods.empty()) return std::nullopt;
  WallTime begin = WallTime::max();
  WallTime end = WallTime::min();
  for (const PodView* pod : group.pods) {
    if (pod == nullptr || pod->created == WallTime() || pod->restarts > 0) return std::nullopt;
    const std::optional<WallTime>& ready_at = pod->ready_at;
    if (!ready_at) return std::nullopt;
    // How long it waited in a queue for others to end is no part of a start.
    begin = std::min(begin, pod->queued && pod->scheduled ? *pod->scheduled : pod->created);
    end = std::max(end, *ready_at);
  }
  const auto seconds = std::chrono::ceil<Seconds>(end - begin).count();
  // The clocks of API server and kubelet may differ.
  return static_cast<int>(std::clamp<long>(seconds, 1, kLongestColdStart));
}

int moved(int known, int measured) {
  if (known == 0) return measured;
  if (4 * std::abs(measured - known) <= known) return known;
  return known + (measured - known) / 2;
}

}  // namespace

int cold_start_seconds(const api::ModelStatus& before, const std::vector<Group>& groups) {
  int known = std::clamp(before.cold_start_seconds, 0, kLongestColdStart);
  for (const Group& group : groups) {
    if (!group.ready || served_before(before, group)) continue;
    if (const auto measured = measure(group)) known = moved(known, *measured);
  }
  return known;
}

}  // namespace dsm::plan
