// A model that serves with all that belongs to it, as an API server sends it: what plan() makes,
// completed as API server, scheduler and kubelet do.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace dsm::bench {

using Json = nlohmann::json;

inline constexpr int kGroups = 5;
inline constexpr int kPodsPerGroup = 2;

struct Objects {
  Json model;
  std::vector<Json> pods;
  std::vector<Json> services;
  std::vector<Json> revisions;
  std::vector<Json> budgets;
};

// The number-th of many: each has names, uids, versions and addresses of its own.
Objects serving_model(int number);

// A line of a leader's status stream.
std::string status_line();

}  // namespace dsm::bench
