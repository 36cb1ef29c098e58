// A trigger of a ScaledObject, as its metadata says it: which number of which model, and what is
// aimed at.
#pragma once

#include <map>
#include <string>

#include "base/result.h"

namespace dsm::keda {

struct Trigger {
  std::string ns;
  std::string model;
  std::string metric;     // a name of external.metrics.k8s.io, such as dsm_queue_depth
  double target = 5;      // of the metric, for each group
  double activation = 0;  // the model is active while the number is greater

  bool operator==(const Trigger&) const = default;
};

// Metadata: model (required), metric (default dsm_queue_depth), target (default 5), activation
// (default 0); all else is KEDA's own or refused by name. kInvalid says which and what to write.
Result<Trigger> parse_trigger(const std::string& ns,
                              const std::map<std::string, std::string>& metadata);

}  // namespace dsm::keda
