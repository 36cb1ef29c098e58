// From what a GPU shows to what is to be thought of it. Pure.
//
// A status that is kept somewhere is written anew when its words change, so a judgement has none of
// the numbers that rise or go up and down, and what comes and goes (lowered clocks, a link that
// trains again) is told until it has been away for a minute.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "worker/health/device_health.h"

namespace dsm::health {

// One look at a GPU.
struct Reading : Signs {
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
};

// Clocks lowered in so many readings in a row are more than a moment's load.
inline constexpr int kHotReadings = 3;
// Something that has not been seen in so many readings in a row is over.
inline constexpr int kCalmReadings = 12;

// What is remembered from one look to the next.
struct History {
  int hot = 0;             // readings in a row with clocks lowered for heat or power
  int cool = 0;            // and without
  std::uint64_t slow = 0;  // Throttle bits for which clocks have been low for long; 0: they are not
  unsigned links = 0;      // the most that were up
  unsigned links_down = 0;          // of these, the most that were down lately
  int linked = 0;                   // readings in a row with all of them up
  std::vector<std::uint64_t> xids;  // that were told, each once, in order
};

void remember(History& history, const Reading& reading);
// True when it is new.
bool remember_xid(History& history, std::uint64_t xid);

// Names of problems, but for those of Xids, which are "Xid" and the number.
inline constexpr const char* kLost = "Lost";
inline constexpr const char* kResetRequired = "ResetRequired";
inline constexpr const char* kRowRemapFailed = "RowRemapFailed";
inline constexpr const char* kRowRemapPending = "RowRemapPending";
inline constexpr const char* kUncorrectedMemory = "UncorrectedMemory";
inline constexpr const char* kNvlinkDown = "NvlinkDown";
inline constexpr const char* kHot = "Hot";
inline constexpr const char* kPowerBraked = "PowerBraked";

DeviceHealth judge(const Reading& reading, const History& history);

// It is kFatal, and no process that starts again on this GPU finds it well.
bool is_lost(const DeviceHealth& health);

}  // namespace dsm::health
