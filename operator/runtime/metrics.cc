#include "operator/runtime/metrics.h"

namespace dsm::runtime {
namespace {

using prometheus::Histogram;
using Labels = std::map<std::string, std::string>;

const Histogram::BucketBoundaries kSeconds{0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
                                           1,     2.5,   5,    10,    30,   60,  300};

prometheus::Counter* counter(MetricsRegistry& registry, const char* name, const char* help,
                             const Labels& labels) {
  return &prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add(labels);
}
prometheus::Gauge* gauge(MetricsRegistry& registry, const char* name, const char* help,
                         const Labels& labels) {
  return &prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add(labels);
}
Histogram* histogram(MetricsRegistry& registry, const char* name, const char* help,
                     const Labels& labels) {
  return &prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add(labels,
                                                                                    kSeconds);
}

}  // namespace

ControllerMetrics::ControllerMetrics(MetricsRegistry& registry, const std::string& controller,
                                     int workers) {
  const Labels mine{{"controller", controller}};
  const Labels queue{{"name", controller}};
  const char* const results[3] = {"success", "error", "requeue_after"};
  for (int i = 0; i < 3; ++i) {
    results_[i] =
        counter(registry, "controller_runtime_reconcile_total", "Reconciliations by result",
                {{"controller", controller}, {"result", results[i]}});
  }
  counter(registry, "controller_runtime_reconcile_total", "Reconciliations by result",
          {{"controller", controller}, {"result", "requeue"}});
  errors_ = counter(registry, "controller_runtime_reconcile_errors_total",
                    "Reconciliations that failed and are tried again", mine);
  counter(registry, "controller_runtime_terminal_reconcile_errors_total",
          "Reconciliations that failed for good", mine);
  counter(registry, "controller_runtime_reconcile_timeouts_total",
          "Reconciliations that ran out of time", mine);
  panics_ = counter(registry, "controller_runtime_reconcile_panics_total",
                    "Reconciliations that ended by an exception", mine);
  seconds_ = histogram(registry, "controller_runtime_reconcile_time_seconds",
                       "Duration of a reconciliation", mine);
  gauge(registry, "controller_runtime_max_concurrent_reconciles",
        "Keys that may be under work at once", mine)
      ->Set(workers);
  active_ = gauge(registry, "controller_runtime_active_workers", "Keys under work", mine);
  leader_ = gauge(registry, "leader_election_master_status", "1 while this process leads, else 0",
                  {{"name", "deepseek-operator"}});
  depth_ = gauge(registry, "workqueue_depth", "Keys waiting", queue);
  adds_ = counter(registry, "workqueue_adds_total", "Keys added", queue);
  retries_ =
      counter(registry, "workqueue_retries_total", "Keys added again after a failure", queue);
  waited_ =
      histogram(registry, "workqueue_queue_duration_seconds", "Time from added to taken", queue);
  worked_ =
      histogram(registry, "workqueue_work_duration_seconds", "Time from taken to done", queue);
  unfinished_ = gauge(registry, "workqueue_unfinished_work_seconds",
                      "Time that the keys under work have taken so far", queue);
  longest_ = gauge(registry, "workqueue_longest_running_processor_seconds",
                   "Time that the longest of them has taken", queue);
  streams_ =
      gauge(registry, "deepseek_operator_status_streams", "Leaders whose status stream speaks", {});
  objects_ = &prometheus::BuildGauge()
                  .Name("deepseek_operator_cached_objects")
                  .Help("Objects in the caches by kind")
                  .Register(registry);
}

QueueObserver ControllerMetrics::queue_observer() {
  return {[this](std::size_t depth) { depth_->Set(static_cast<double>(depth)); },
          [this] { adds_->Increment(); }, [this] { retries_->Increment(); },
          [this](double seconds) { waited_->Observe(seconds); },
          [this](double seconds) { worked_->Observe(seconds); }};
}

void ControllerMetrics::update(const WorkQueue& queue) {
  const auto [all, longest] = queue.under_work();
  unfinished_->Set(all);
  longest_->Set(longest);
}

void ControllerMetrics::reconciled(Result result, double seconds) {
  results_[static_cast<int>(result)]->Increment();
  if (result == Result::kError) errors_->Increment();
  seconds_->Observe(seconds);
}

void ControllerMetrics::objects(const std::string& kind, std::size_t count) {
  objects_->Add({{"kind", kind}}).Set(static_cast<double>(count));
}

}  // namespace dsm::runtime
