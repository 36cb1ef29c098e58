// What the operator would look at, as far as a user may read it. Reads the cluster.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "ctl/cluster.h"
#include "operator/plan/observed.h"

namespace dsm::ctl {

struct Seen {
  plan::Observed observed;
  // What is not known, for want of rights or because nobody can say, and what is taken in its
  // place.
  std::vector<std::string> notes;
};

// `model` as it is, or as it would be. Not seen is what the leaders say to the operator alone.
Result<Seen> observe(Cluster& cluster, const nlohmann::json& model);

// Which metrics API an operator here serves, by the resources that each of the two lists; nullopt:
// nobody serves it. Pure.
plan::MetricsApi metrics_api_of(const std::optional<std::vector<std::string>>& external,
                                const std::optional<std::vector<std::string>>& custom);

}  // namespace dsm::ctl
