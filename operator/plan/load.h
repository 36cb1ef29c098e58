// How much a model has to do, as its leaders say: the numbers that autoscalers read. A number that
// is not known is never given as 0, since groups would go because of it.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "operator/plan/observed.h"

namespace dsm::plan {

// A leader's line older than this is not the load of now. Leaders speak at least every 2 s.
inline constexpr Seconds kLoadStale{5};

struct ModelLoad {
  std::string model;
  std::string unknown;   // why the numbers are not known; empty: they are
  long queue_depth = 0;  // requests that are accepted and wait
  long queue_age_s = 0;  // how long the oldest of them has waited
  long running = 0;
  long kv_used = 0;   // tokens in the KV caches,
  long kv_total = 0;  // and how many they hold
  WallTime time;      // of the oldest number in it
};

// `uid` is the model's own, `pods` those with its label, `leaders` their lines by uid of the pod.
// Every leader that speaks counts, also one that is not ready (its group comes back, or it drains
// what it has); every one that is ready, or that spoke since its process began, must speak.
ModelLoad load_of(std::string model, const std::string& uid, const std::vector<PodView>& pods,
                  const std::map<std::string, LeaderStatus>& leaders, WallTime now);

}  // namespace dsm::plan
