// Waiting on a Clock that a stop request ends at once.
#pragma once

#include <condition_variable>
#include <mutex>
#include <stop_token>

#include "base/clock.h"

namespace dsm::kube {

// True at `deadline`, false when `stop` was requested before.
inline bool sleep_until(Clock& clock, TimePoint deadline, const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable wake;
  const std::stop_callback notify(stop, [&] {
    const std::lock_guard lock(mutex);
    wake.notify_all();
  });
  std::unique_lock lock(mutex);
  while (!stop.stop_requested() && clock.now() < deadline) clock.wait_until(wake, lock, deadline);
  return !stop.stop_requested();
}

inline bool sleep_for(Clock& clock, Millis duration, const std::stop_token& stop) {
  return sleep_until(clock, clock.now() + duration, stop);
}

}  // namespace dsm::kube
