#include "base/clock.h"

#include <algorithm>
#include <cstdio>
#include <ctime>

namespace dsm {
namespace {

// The longest a manual clock's waiter sleeps before it looks at the hand-moved time again.
constexpr auto kManualPoll = std::chrono::milliseconds(1);

std::tm utc(WallTime time) {
  const std::time_t seconds = std::chrono::system_clock::to_time_t(time);
  std::tm tm{};
  gmtime_r(&seconds, &tm);
  return tm;
}

}  // namespace

TimePoint SystemClock::now() const {
  return std::chrono::steady_clock::now();
}
WallTime SystemClock::wall_now() const {
  return std::chrono::system_clock::now();
}

void SystemClock::wait_until(std::condition_variable& cv, std::unique_lock<std::mutex>& lock,
                             TimePoint deadline) {
  if (deadline == TimePoint::max()) {
    cv.wait(lock);
  } else {
    cv.wait_until(lock, deadline);
  }
}

TimePoint ManualClock::now() const {
  std::lock_guard lock(mutex_);
  return TimePoint(std::chrono::duration_cast<TimePoint::duration>(elapsed_));
}

WallTime ManualClock::wall_now() const {
  std::lock_guard lock(mutex_);
  return WallTime(std::chrono::duration_cast<WallTime::duration>(elapsed_));
}

void ManualClock::wait_until(std::condition_variable& cv, std::unique_lock<std::mutex>& lock,
                             TimePoint deadline) {
  if (now() >= deadline) return;
  cv.wait_for(lock, kManualPoll);
}

void ManualClock::advance(std::chrono::nanoseconds by) {
  std::lock_guard lock(mutex_);
  elapsed_ += by;
}

std::string to_rfc3339(WallTime time) {
  const std::tm tm = utc(time);
  char buffer[32];
  std::strftime(buffer, sizeof buffer, "%Y-%m-%dT%H:%M:%SZ", &tm);
  return buffer;
}

std::string to_rfc3339_micro(WallTime time) {
  const std::tm tm = utc(time);
  char seconds[32];
  std::strftime(seconds, sizeof seconds, "%Y-%m-%dT%H:%M:%S", &tm);
  const auto micros =
      std::chrono::duration_cast<std::chrono::microseconds>(time.time_since_epoch()).count() %
      1000000;
  char buffer[48];
  std::snprintf(buffer, sizeof buffer, "%s.%06dZ", seconds, static_cast<int>(micros));
  return buffer;
}

WallTime from_rfc3339(const std::string& text) {
  std::tm tm{};
  const char* rest = strptime(text.c_str(), "%Y-%m-%dT%H:%M:%S", &tm);
  if (rest == nullptr) return WallTime{};
  WallTime time = std::chrono::system_clock::from_time_t(timegm(&tm));
  if (*rest == '.') {
    int micros = 0;
    int scale = 100000;
    for (++rest; *rest >= '0' && *rest <= '9'; ++rest, scale /= 10) micros += (*rest - '0') * scale;
    time += std::chrono::microseconds(micros);
  }
  return time;
}

}  // namespace dsm
