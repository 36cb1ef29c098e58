// The numbers of the models as Prometheus series, with the labels namespace and model: four for
// each model that there is and whose load is known. A number that is not known has no series, and
// never the value 0. Thread-safe.
#pragma once

#include <array>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/metrics.h"
#include "operator/metrics_api/numbers.h"

namespace dsm::metrics_api {

class LoadSeries {
 public:
  using Loads = std::map<std::string, std::vector<plan::ModelLoad>>;  // by namespace

  explicit LoadSeries(MetricsRegistry& registry);
  LoadSeries(const LoadSeries&) = delete;
  LoadSeries& operator=(const LoadSeries&) = delete;

  // Series of models that are not in `loads` end. Call it before the metrics are read.
  void update(const Loads& loads);

 private:
  using Gauges = std::array<prometheus::Gauge*, kNumberCount>;

  std::array<prometheus::Family<prometheus::Gauge>*, kNumberCount> families_{};
  std::mutex mutex_;
  // By namespace and model; guarded by mutex_.
  std::map<std::pair<std::string, std::string>, Gauges> series_;
};

}  // namespace dsm::metrics_api
