// Whether a step under way gets on. A rank that hangs stops all others at the next exchange, so one
// pod's own ranks show it for the group. A value: no clock, no thread.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "base/clock.h"

namespace dsm::group {

class StepWatch {
 public:
  // No rank may stand still for longer, unless it has been seen to stand still for long and to get
  // on: a slow machine is not taken for a hung one.
  explicit StepWatch(std::chrono::nanoseconds patience) : patience_(patience) {}

  // A look at the step under way, which began at `start`. `moves` is another number whenever a rank
  // has got on (RankThreads::moves()). True: none has for too long.
  bool hangs(TimePoint now, TimePoint start, std::uint64_t moves) {
    const TimePoint stood = std::max(start, moved_);
    if (moves != moves_) {
      stood_for(now - stood);
      moves_ = moves;
      moved_ = now;
      return false;
    }
    return now - stood > limit();
  }
  // The step that began at `start` has ended.
  void ended(TimePoint now, TimePoint start) {
    stood_for(now - std::max(start, moved_));
    moved_ = now;
  }

  std::chrono::nanoseconds limit() const {
    constexpr int kFar = 4;
    return std::max(patience_, kFar * longest_);
  }

 private:
  void stood_for(std::chrono::nanoseconds time) { longest_ = std::max(longest_, time); }

  const std::chrono::nanoseconds patience_;
  std::chrono::nanoseconds longest_{0};  // after which a rank has got on
  std::uint64_t moves_ = 0;
  TimePoint moved_{};  // when that was seen
};

}  // namespace dsm::group
