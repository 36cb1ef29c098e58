#include "operator/faults/fault_source.h"

#include <array>

namespace dsm::faults {
namespace {

constexpr double kWriteFails = 0.06;
constexpr double kLatenessChanges = 0.2;
constexpr double kTwice = 0.05;
constexpr double kDropped = 0.02;
// Mostly at once, sometimes by more than a look after a failed write waits.
constexpr std::array<int, 8> kLateMs = {0, 0, 0, 50, 300, 900, 2'500, 8'000};

}  // namespace

bool RandomFaults::chance(double probability) {
  return std::uniform_real_distribution<double>()(random_) < probability;
}

int RandomFaults::below(int end) {
  return std::uniform_int_distribution<int>(0, end - 1)(random_);
}

double RandomFaults::jitter() {
  return std::uniform_real_distribution<double>()(random_);
}

WriteFault RandomFaults::of_write(bool) {
  if (!on_ || !chance(kWriteFails)) return WriteFault::kNone;
  constexpr std::array kAll = {WriteFault::kRefused,    WriteFault::kLostBefore,
                               WriteFault::kLostAfter,  WriteFault::kCrashBefore,
                               WriteFault::kCrashAfter, WriteFault::kSlow,
                               WriteFault::kStopped,    WriteFault::kHandOver};
  return kAll[static_cast<std::size_t>(below(static_cast<int>(kAll.size())))];
}

EventFault RandomFaults::of_event(const std::string& plural) {
  if (!on_) return {};
  Millis& late = late_[plural];
  if (chance(kLatenessChanges)) {
    late = Millis(kLateMs[static_cast<std::size_t>(below(static_cast<int>(kLateMs.size())))]);
  }
  return {.delay = late, .twice = chance(kTwice), .dropped = chance(kDropped)};
}

Millis RandomFaults::of_list() {
  return Millis(on_ && chance(0.3) ? below(3'000) : 0);
}

// A slow write is answered within its time-out, 6.5 s; who is stopped may be so for longer than the
// lease lasts, 15 s.
Millis RandomFaults::pause(WriteFault fault) {
  return Millis(fault == WriteFault::kSlow ? 500 + below(5'500) : 2'000 + below(28'000));
}

}  // namespace dsm::faults
