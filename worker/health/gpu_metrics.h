// GPUs in Prometheus. What a product does not tell has no series. One thread.
#pragma once

#include <string>

#include "base/metrics.h"
#include "worker/health/judge.h"

namespace dsm::health {

class GpuMetrics {
 public:
  // Outlived by `registry`.
  explicit GpuMetrics(MetricsRegistry& registry) : registry_(registry) {}

  // Every known Xid of this rank's GPU at zero.
  void begin(int rank, const Reading& reading);
  void update(int rank, const Reading& reading, const DeviceHealth& health);
  // `xid` as told by the driver; those that are not known are counted as "other".
  void count(int rank, const Reading& reading, std::uint64_t xid);

 private:
  MetricsRegistry& registry_;
};

}  // namespace dsm::health
