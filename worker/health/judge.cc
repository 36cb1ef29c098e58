#include "worker/health/judge.h"

#include <algorithm>

#include "worker/health/xid.h"

namespace dsm::health {
namespace {

constexpr std::uint64_t kSlow = kThermal | kHardwareThermal | kPowerBrake;
constexpr std::size_t kMostXids = 64;  // remembered; a driver has some hundred numbers

// The worst that the driver has told; the first of equals, since others follow from it.
const Xid* worst_xid(const History& history) {
  const Xid* worst = nullptr;
  for (const std::uint64_t number : history.xids) {
    const Xid* const xid = find_xid(number);
    if (xid != nullptr && (worst == nullptr || (xid->fatal && !worst->fatal))) worst = xid;
  }
  return worst;
}

// Why nothing that it computes is to be relied on; empty: there is no reason.
std::string fatal_reason(const Reading& reading, const Xid* xid) {
  if (xid != nullptr && xid->fatal) return sentence(*xid);
  if (reading.lost) return "it does not answer any more: restart the node";
  if (reading.needs_reset) return "its driver asks for a reset: drain the node and reset the GPU";
  return "";
}

std::string degraded_reason(const Reading& reading, const History& history, const Xid* xid) {
  if (reading.rows && reading.rows->failed) {
    return "a memory row could not be remapped and none is left: replace the GPU";
  }
  if (reading.rows && reading.rows->pending) {
    return "a memory row waits to be remapped: reset the GPU when the node is next drained";
  }
  if (reading.ecc_uncorrected.value_or(0) > 0) {
    return std::to_string(*reading.ecc_uncorrected) +
           " uncorrected memory errors since its driver was loaded: reset the GPU when the node is "
           "next drained";
  }
  if (reading.links && *reading.links < history.links) {
    return std::to_string(history.links - *reading.links) + " of " + std::to_string(history.links) +
           " NVLinks are down: reset the GPU, or look at its seat";
  }
  if (xid != nullptr) return sentence(*xid);
  if (history.hot >= kHotReadings) {
    // Without numbers: a message that changes with each reading would be news each time.
    const bool power = (reading.throttle.value_or(0) & kPowerBrake) != 0;
    return power ? "its clocks are lowered by the power supply: check the node's power"
                 : "its clocks are lowered for heat: check the node's cooling";
  }
  return "";
}

}  // namespace

std::string_view to_string(Level level) {
  switch (level) {
    case Level::kUnknown:
      return "Unknown";
    case Level::kHealthy:
      return "Healthy";
    case Level::kDegraded:
      return "Degraded";
    case Level::kFatal:
      return "Fatal";
  }
  return "Unknown";
}

void remember(History& history, const Reading& reading) {
  history.hot = (reading.throttle.value_or(0) & kSlow) != 0 ? history.hot + 1 : 0;
  history.links = std::max(history.links, reading.links.value_or(0));
}

bool remember_xid(History& history, std::uint64_t xid) {
  const bool known = std::ranges::find(history.xids, xid) != history.xids.end();
  if (known || history.xids.size() >= kMostXids) return false;
  history.xids.push_back(xid);
  return true;
}

DeviceHealth judge(const Reading& reading, const History& history) {
  DeviceHealth health{.level = Level::kHealthy,
                      .device = reading.device,
                      .message = "",
                      .utilisation_percent = reading.utilisation_percent.value_or(0),
                      .temperature_celsius = reading.temperature_celsius.value_or(0),
                      .power_watts = reading.power_milliwatts.value_or(0) / 1000,
                      .memory_used = reading.memory_used.value_or(0),
                      .memory_total = reading.memory_total.value_or(0),
                      .memory_allocated = reading.own.allocated,
                      .memory_fragmented = reading.own.fragmented};
  const Xid* const xid = worst_xid(history);
  std::string why = fatal_reason(reading, xid);
  if (!why.empty()) {
    health.level = Level::kFatal;
  } else if (why = degraded_reason(reading, history, xid); !why.empty()) {
    health.level = Level::kDegraded;
  }
  if (!why.empty()) health.message = reading.device + ": " + why;
  return health;
}

}  // namespace dsm::health
