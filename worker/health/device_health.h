// How the GPU of a rank is, as others are told of it: a value for the group's control channel and
// the status stream. Plain.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

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

// Why clocks are lower than asked for; bits as in NVML (nvmlClocksEventReasons).
enum Throttle : std::uint64_t {
  kPowerCap = 0x4,
  kHardwareSlowdown = 0x8,
  kThermal = 0x20,
  kHardwareThermal = 0x40,
  kPowerBrake = 0x80,
};
struct ThrottleReason {
  Throttle bit;
  std::string_view name;  // "power_cap", "thermal", ...
};
std::span<const ThrottleReason> throttle_reasons();

struct RemappedRows {
  std::uint32_t corrected = 0;  // because of corrected errors,
  std::uint32_t uncorrected = 0;
  bool pending = false;  // one waits for a reset
  bool failed = false;   // there was none left

  bool operator==(const RemappedRows&) const = default;
};

// What a GPU tells of its clocks, its memory's errors and its links. What a product or a driver
// does not tell is absent.
struct Signs {
  std::optional<std::uint32_t> sm_clock_mhz = {};
  std::optional<std::uint32_t> memory_clock_mhz = {};
  std::optional<std::uint64_t> throttle = {};       // Throttle bits
  std::optional<std::uint64_t> ecc_corrected = {};  // since the driver was loaded
  std::optional<std::uint64_t> ecc_uncorrected = {};
  std::optional<RemappedRows> rows = {};
  std::optional<std::uint32_t> links = {};        // NVLinks that are up
  std::optional<std::uint64_t> link_errors = {};  // replays, recoveries and checksums, of all links

  bool operator==(const Signs&) const = default;
};

struct DeviceHealth {
  Level level = Level::kUnknown;
  std::string device;   // "GPU 3", as its node numbers them
  std::string message;  // of kDegraded and kFatal: the first of what is wrong, and what to do
  // All that is wrong, the worst first, a word each: "Xid79", "RowRemapPending", ... (judge.h).
  std::vector<std::string> problems = {};
  std::uint32_t utilisation_percent = 0;
  std::uint32_t temperature_celsius = 0;
  std::uint32_t power_watts = 0;
  std::uint64_t memory_used = 0;  // bytes, of all processes
  std::uint64_t memory_total = 0;
  std::uint64_t memory_allocated = 0;  // as OwnMemory's
  std::uint64_t memory_fragmented = 0;
  Signs signs = {};
  std::vector<std::uint64_t> xids = {};  // that the driver has told of it, each once

  bool operator==(const DeviceHealth&) const = default;
};

}  // namespace dsm::health
