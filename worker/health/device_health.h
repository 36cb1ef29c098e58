// How the GPU of a rank is, as others are told of it: a value for the group's control channel and
// the status stream. Plain.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace dsm::health {

enum class Level : std::uint8_t {
  kUnknown,   // it has no GPU, or nothing that tells how one is
  kHealthy,   // nothing is known against it
  kDegraded,  // it computes, slower or not for long: a person should look
  kFatal,     // nothing that it computes is to be relied on
};
// "Unknown", "Healthy", ...
std::string_view to_string(Level level);

struct DeviceHealth {
  Level level = Level::kUnknown;
  std::string device;   // "GPU 3", as its node numbers them
  std::string message;  // of kDegraded and kFatal: what is wrong, and what to do
  std::uint32_t utilisation_percent = 0;
  std::uint32_t temperature_celsius = 0;
  std::uint32_t power_watts = 0;
  std::uint64_t memory_used = 0;  // bytes, of all processes
  std::uint64_t memory_total = 0;

  bool operator==(const DeviceHealth&) const = default;
};

}  // namespace dsm::health
