#include "worker/health/gpu_metrics.h"

#include <map>
#include <optional>
#include <utility>

#include "worker/health/xid.h"

namespace dsm::health {
namespace {

using Labels = std::map<std::string, std::string>;

Labels labels_of(int rank, const Reading& reading) {
  return {{"rank", std::to_string(rank)}, {"gpu", reading.device}, {"bus", reading.bus}};
}

Labels with(Labels labels, const char* name, std::string value) {
  labels[name] = std::move(value);
  return labels;
}

// The same series is found again for the same labels.
prometheus::Counter& xid_counter(MetricsRegistry& registry, const Labels& labels,
                                 const std::string& xid) {
  return prometheus::BuildCounter()
      .Name("dsm_gpu_xid_events_total")
      .Help("Errors that the driver has told, by their Xid")
      .Register(registry)
      .Add(with(labels, "xid", xid));
}

// Gauges of one GPU.
class Gauges {
 public:
  Gauges(MetricsRegistry& registry, Labels labels)
      : registry_(registry), labels_(std::move(labels)) {}

  template <typename T>
  void set(const char* name, const char* help, const std::optional<T>& value, double unit = 1) {
    if (value) set(name, help, labels_, static_cast<double>(*value) * unit);
  }
  void set(const char* name, const char* help, const Labels& labels, double value) {
    prometheus::BuildGauge().Name(name).Help(help).Register(registry_).Add(labels).Set(value);
  }
  template <typename T>
  void set_kind(const char* name, const char* help, const char* label, std::string kind,
                const std::optional<T>& value) {
    if (value) set(name, help, with(labels_, label, std::move(kind)), static_cast<double>(*value));
  }

 private:
  MetricsRegistry& registry_;
  Labels labels_;
};

void set_throttle(Gauges& gauges, const std::optional<std::uint64_t>& bits) {
  for (const auto& [bit, name] : throttle_reasons()) {
    const std::optional<int> on = bits ? std::optional((*bits & bit) != 0 ? 1 : 0) : std::nullopt;
    gauges.set_kind("dsm_gpu_throttled", "Clocks are lowered for this reason: 1", "reason",
                    std::string(name), on);
  }
}

void set_errors(Gauges& gauges, const Reading& now) {
  constexpr const char* kEcc = "dsm_gpu_ecc_errors";
  constexpr const char* kEccHelp = "Memory errors since the driver was loaded";
  gauges.set_kind(kEcc, kEccHelp, "kind", "corrected", now.ecc_corrected);
  gauges.set_kind(kEcc, kEccHelp, "kind", "uncorrected", now.ecc_uncorrected);
  if (!now.rows) return;
  constexpr const char* kRows = "dsm_gpu_remapped_rows";
  constexpr const char* kRowsHelp = "Rows of memory that were replaced, by what was wrong";
  gauges.set_kind(kRows, kRowsHelp, "kind", "corrected", std::optional(now.rows->corrected));
  gauges.set_kind(kRows, kRowsHelp, "kind", "uncorrected", std::optional(now.rows->uncorrected));
  gauges.set("dsm_gpu_row_remap_pending", "A row waits for a reset to be replaced: 1",
             std::optional(now.rows->pending ? 1 : 0));
  gauges.set("dsm_gpu_row_remap_failed", "A row could not be replaced: 1",
             std::optional(now.rows->failed ? 1 : 0));
}

}  // namespace

void GpuMetrics::begin(int rank, const Reading& reading) {
  const Labels labels = labels_of(rank, reading);
  for (const Xid& xid : known_xids()) {
    xid_counter(registry_, labels, std::to_string(xid.number));
  }
  xid_counter(registry_, labels, "other");
}

void GpuMetrics::update(int rank, const Reading& now, const DeviceHealth& health) {
  constexpr double kMega = 1e6;
  Gauges gauges(registry_, labels_of(rank, now));
  gauges.set("dsm_gpu_health", "0: healthy, 1: degraded, 2: fatal",
             std::optional(static_cast<int>(health.level) - static_cast<int>(Level::kHealthy)));
  gauges.set("dsm_gpu_utilisation_ratio", "Part of the time in which a kernel ran, 0 to 1",
             now.utilisation_percent, 0.01);
  gauges.set("dsm_gpu_memory_used_bytes", "Memory in use, of all processes", now.memory_used);
  gauges.set("dsm_gpu_memory_total_bytes", "Memory that there is", now.memory_total);
  gauges.set("dsm_gpu_memory_allocated_bytes",
             "Memory that the rank has of it, for weights, KV cache and scratch memory",
             std::optional(now.own.allocated));
  gauges.set("dsm_gpu_memory_fragmented_bytes",
             "Of what the rank has, bytes between its parts that nothing stands in",
             std::optional(now.own.fragmented));
  gauges.set("dsm_gpu_temperature_celsius", "Temperature of the chip", now.temperature_celsius);
  gauges.set("dsm_gpu_power_watts", "Power that it draws", now.power_milliwatts, 0.001);
  gauges.set("dsm_gpu_sm_clock_hertz", "Clock of the processors", now.sm_clock_mhz, kMega);
  gauges.set("dsm_gpu_memory_clock_hertz", "Clock of the memory", now.memory_clock_mhz, kMega);
  gauges.set("dsm_gpu_nvlinks_up", "NVLinks that are up", now.links);
  gauges.set("dsm_gpu_nvlink_errors", "Replays, recoveries and wrong checksums, of all NVLinks",
             now.link_errors);
  set_throttle(gauges, now.throttle);
  set_errors(gauges, now);
}

void GpuMetrics::count(int rank, const Reading& reading, std::uint64_t xid) {
  const bool known = find_xid(xid) != nullptr;
  xid_counter(registry_, labels_of(rank, reading), known ? std::to_string(xid) : "other")
      .Increment();
}

}  // namespace dsm::health
