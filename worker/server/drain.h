// The way out of a worker, and the count of the requests that stand in it:
//
//   serving -> begin() -> unready: requests are still accepted, for endpoints take a while to
//              disappear everywhere -> none came for `unready`: refusing, running ones are finished
//              -> drained, or the limit has passed
//
// Who still asks has an old address, so the second phase lasts as long as somebody does: at most
// `unready` and half of `finish`, for what was accepted last wants to finish, too.
//
// Thread-safe. Time is the clock's, so the phases need no thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>

#include "base/clock.h"

namespace dsm::server {

class Drain {
 public:
  struct Limits {
    Millis unready{5000};
    Millis finish{120'000};
  };

  Drain(Limits limits, Clock& clock) : limits_(limits), clock_(clock) {}
  Drain(const Drain&) = delete;
  Drain& operator=(const Drain&) = delete;

  // A request: enter() before it is started, leave() when it has ended. False once new ones are
  // refused.
  bool enter();
  void leave();

  // Called once, by the first begin(), on its thread. Set before anything else is called.
  void on_begin(std::function<void()> callback) { on_begin_ = std::move(callback); }
  // `at_once`: nobody has to be told first, new requests are refused from now on.
  void begin(bool at_once = false);
  bool begun() const;
  // No time is left: wait() returns at once.
  void hurry();
  // After begin(): waits until requests are refused and none runs. False: the limit has passed.
  bool wait();

  int in_flight() const;

 private:
  // When new requests are refused; after begin().
  TimePoint refuse_at_locked() const;
  bool refusing_locked() const;

  Limits limits_;
  Clock& clock_;
  std::function<void()> on_begin_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool begun_ = false;
  TimePoint begun_at_;
  TimePoint last_entered_;  // after begin()
  bool hurry_ = false;
  int in_flight_ = 0;
};

}  // namespace dsm::server
