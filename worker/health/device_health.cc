#include "worker/health/device_health.h"

#include <array>

namespace dsm::health {

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

std::span<const ThrottleReason> throttle_reasons() {
  static constexpr std::array kReasons = {
      ThrottleReason{kPowerCap, "power_cap"}, ThrottleReason{kHardwareSlowdown, "hardware"},
      ThrottleReason{kThermal, "thermal"}, ThrottleReason{kHardwareThermal, "hardware_thermal"},
      ThrottleReason{kPowerBrake, "power_brake"}};
  return kReasons;
}

}  // namespace dsm::health
