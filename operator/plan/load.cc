#include "operator/plan/load.h"

#include <algorithm>

namespace dsm::plan {

ModelLoad load_of(std::string model, const std::string& uid, const std::vector<PodView>& pods,
                  const std::map<std::string, LeaderStatus>& leaders, WallTime now) {
  ModelLoad load;
  load.model = std::move(model);
  load.time = now;
  for (const PodView& pod : pods) {
    if (pod.index != 0 || pod.owner_uid != uid) continue;
    const auto line = leaders.find(pod.uid);
    const bool spoke = line != leaders.end();
    if (!spoke || line->second.received + kLoadStale < now) {
      // The process that spoke still has what it had; a later one has nothing yet.
      const bool has_some =
          spoke && pod.running && (!pod.started || *pod.started <= line->second.received);
      if ((pod.ready || has_some) && !pod.deletion) {
        load.unknown = "its leader " + pod.name + " is silent";
      }
      continue;
    }
    const LeaderStatus& status = line->second;
    load.queue_depth += status.queue_depth;
    load.queue_age_s = std::max(load.queue_age_s, status.queue_age_s);
    load.running += status.running;
    load.kv_used += status.kv_used;
    load.kv_total += status.kv_total;
    load.time = std::min(load.time, status.received);
  }
  return load;
}

}  // namespace dsm::plan
