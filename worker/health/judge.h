// From what a GPU shows to what is to be thought of it. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "worker/health/device_health.h"

namespace dsm::health {

// Why clocks are lower than asked for; bits as in NVML (nvmlClocksEventReasons).
enum Throttle : std::uint64_t {
  kPowerCap = 0x4,
  kHardwareSlowdown = 0x8,
  kThermal = 0x20,
  kHardwareThermal = 0x40,
  kPowerBrake = 0x80,
};

struct RemappedRows {
  unsigned corrected = 0;  // because of corrected errors,
  unsigned uncorrected = 0;
  bool pending = false;  // one waits for a reset
  bool failed = false;   // there was none left
};

// One look at a GPU. What a product or a driver does not tell is absent.
struct Reading {
  std::string device;  // "GPU 3"
  std::string bus;     // "0000:1B:00.0"
  bool lost = false;   // it does not answer any more
  bool needs_reset = false;
  std::optional<unsigned> utilisation_percent;
  std::optional<std::uint64_t> memory_used;  // bytes
  std::optional<std::uint64_t> memory_total;
  OwnMemory own;  // of the rank whose GPU it is
  std::optional<unsigned> temperature_celsius;
  std::optional<unsigned> power_milliwatts;
  std::optional<unsigned> sm_clock_mhz;
  std::optional<unsigned> memory_clock_mhz;
  std::optional<std::uint64_t> throttle;       // Throttle bits
  std::optional<std::uint64_t> ecc_corrected;  // since the driver was loaded
  std::optional<std::uint64_t> ecc_uncorrected;
  std::optional<RemappedRows> rows;
  std::optional<unsigned> links;             // NVLinks that are up
  std::optional<std::uint64_t> link_errors;  // replays, recoveries and checksums, of all links
};

// What is remembered from one look to the next.
struct History {
  int hot = 0;                      // readings in a row with clocks lowered for heat or power
  unsigned links = 0;               // the most that were up
  std::vector<std::uint64_t> xids;  // that were told, each once, in order
};
// Clocks lowered in so many readings in a row are more than a moment's load.
inline constexpr int kHotReadings = 3;

void remember(History& history, const Reading& reading);
// True when it is new.
bool remember_xid(History& history, std::uint64_t xid);

DeviceHealth judge(const Reading& reading, const History& history);

}  // namespace dsm::health
