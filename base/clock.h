// Time as an argument. Code that waits or measures takes a Clock, so that tests move time by hand.
// Implementations are thread-safe.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>

namespace dsm {

using Millis = std::chrono::milliseconds;
using Seconds = std::chrono::seconds;
using TimePoint = std::chrono::steady_clock::time_point;  // for durations and deadlines
using WallTime = std::chrono::system_clock::time_point;   // for time stamps that people read

class Clock {
 public:
  virtual ~Clock() = default;
  virtual TimePoint now() const = 0;
  virtual WallTime wall_now() const = 0;
  // Waits on `cv` (with `lock` held) until it is notified or `deadline` has passed on this clock.
  // Spurious wake-ups happen: the caller loops over its own condition.
  virtual void wait_until(std::condition_variable& cv, std::unique_lock<std::mutex>& lock,
                          TimePoint deadline) = 0;
};

// The machine's clocks.
class SystemClock final : public Clock {
 public:
  TimePoint now() const override;
  WallTime wall_now() const override;
  void wait_until(std::condition_variable& cv, std::unique_lock<std::mutex>& lock,
                  TimePoint deadline) override;
};

// A clock that stands still until advance() is called; for tests. Threads in wait_until() wake on
// advance() as on a notification.
class ManualClock final : public Clock {
 public:
  TimePoint now() const override;
  WallTime wall_now() const override;
  void wait_until(std::condition_variable& cv, std::unique_lock<std::mutex>& lock,
                  TimePoint deadline) override;
  void advance(std::chrono::nanoseconds by);

 private:
  mutable std::mutex mutex_;
  std::chrono::nanoseconds elapsed_{std::chrono::hours(1)};
};

// "2026-01-31T12:00:00Z", the form of Kubernetes' metav1.Time (seconds, UTC).
std::string to_rfc3339(WallTime time);
// "2026-01-31T12:00:00.123456Z", the form of metav1.MicroTime (Lease).
std::string to_rfc3339_micro(WallTime time);
// Reads both forms; an unreadable text gives the epoch.
WallTime from_rfc3339(const std::string& text);

}  // namespace dsm
