// The operator's own metrics under the names that dashboards for controllers expect, all there with
// zero from the start. Thread-safe.
#pragma once

#include <string>

#include "base/metrics.h"
#include "operator/runtime/work_queue.h"

namespace dsm::runtime {

class ControllerMetrics {
 public:
  enum class Result { kSuccess, kError, kRequeueAfter };

  // `controller` is the label value, `workers` how many keys may be under work at once.
  ControllerMetrics(MetricsRegistry& registry, const std::string& controller, int workers);

  // What the work queue calls.
  QueueObserver queue_observer();
  // Numbers that grow by themselves: call it before the metrics are read.
  void update(const WorkQueue& queue);

  void reconciled(Result result, double seconds);
  void panicked() { panics_->Increment(); }
  void active(int change) { active_->Increment(change); }
  void leading(bool is) { leader_->Set(is ? 1 : 0); }
  void objects(const std::string& kind, std::size_t count);
  void streams(std::size_t connected) { streams_->Set(static_cast<double>(connected)); }

 private:
  prometheus::Counter* results_[3];
  prometheus::Counter* errors_;
  prometheus::Counter* panics_;
  prometheus::Histogram* seconds_;
  prometheus::Gauge* active_;
  prometheus::Gauge* leader_;
  prometheus::Gauge* depth_;
  prometheus::Counter* adds_;
  prometheus::Counter* retries_;
  prometheus::Histogram* waited_;
  prometheus::Histogram* worked_;
  prometheus::Gauge* unfinished_;
  prometheus::Gauge* longest_;
  prometheus::Gauge* streams_;
  prometheus::Family<prometheus::Gauge>* objects_;
};

}  // namespace dsm::runtime
