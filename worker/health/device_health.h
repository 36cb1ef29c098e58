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

// What a rank itself has of its GPU's memory, which NVML does not tell apart.
struct OwnMemory {
  std::uint64_t allocated = 0;   // bytes: weights, KV cache, scratch memory
  std::uint64_t fragmented = 0;  // of these, bytes between its parts that nothing stands in

  bool operator==(const OwnMemory&) const = default;
};

struct DeviceHealth {
  Level level = Level::kUnknown;
  std::string device;   // "GPU 3", as its node numbers them
  std::string message;  // of kDegraded and kFatal: what is wrong, and what to do
  std::uint32_t utilisation_percent = 0;
  std::uint32_t temperature_celsius = 0;
  std::uint32_t power_watts = 0;
  std::uint64_t memory_used = 0;  // bytes, of all processes
  std::uint64_t memory_total = 0;
  std::uint64_t memory_allocated = 0;  // as OwnMemory's
  std::uint64_t memory_fragmented = 0;

  bool operator==(const DeviceHealth&) const = default;
};

}  // namespace dsm::health
