// prometheus-cpp's core types under one roof: a registry is made in main, each component builds its
// own struct of metrics from it, and the HTTP server serves metrics_text(). Thread-safe as
// prometheus-cpp is.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <memory>
#include <string>

namespace dsm {

using MetricsRegistry = prometheus::Registry;

// The registry in Prometheus' text exposition format 0.0.4.
std::string metrics_text(const MetricsRegistry& registry);
// Its content type.
inline constexpr const char* kMetricsContentType = "text/plain; version=0.0.4; charset=utf-8";

// process_cpu_seconds_total, process_resident_memory_bytes, process_start_time_seconds and
// process_open_fds. update() reads /proc; call it before metrics_text().
class ProcessMetrics {
 public:
  explicit ProcessMetrics(MetricsRegistry& registry);
  ~ProcessMetrics();
  void update();

 private:
  struct Gauges;
  std::unique_ptr<Gauges> gauges_;
};

}  // namespace dsm
