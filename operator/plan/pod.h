// A worker pod as JSON. The only place where the worker's command line, probes, mounts and security
// settings are written.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "operator/plan/children.h"
#include "operator/plan/observed.h"

namespace dsm::plan {

struct PodPlace {
  int group = 0;
  int index = 0;                         // 0: the leader
  std::vector<std::string> avoid_nodes;  // rather not there: a group failed on them, or leaves
  bool bound_together = false;           // with the others of its group, by its PodGroup
};

nlohmann::json pod_json(const Owner& owner, const Revision& revision, const PodPlace& place,
                        const Config& config);

// Time between SIGTERM and SIGKILL beyond the drain limit, in seconds.
inline constexpr int kGraceBeyondDrain = 15;

}  // namespace dsm::plan
