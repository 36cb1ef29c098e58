// One thread that turns tokens into text and sends it, so that the engine's thread only hands
// tokens over. It also ticks, for what has to happen when no token comes.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "base/clock.h"

namespace dsm::server {

class Outlet {
 public:
  // `tick` runs on the outlet's thread once in `period`. `clock` outlives this.
  Outlet(Clock& clock, Millis period, std::function<void(TimePoint now)> tick);
  ~Outlet();  // runs what was posted, then ends
  Outlet(const Outlet&) = delete;
  Outlet& operator=(const Outlet&) = delete;

  // Any thread. Tasks run in the order in which they were posted.
  void post(std::function<void()> task);
  // Waits until all that was posted before has run. Not on the outlet's thread.
  void settle();

 private:
  void run(TimePoint next_tick);

  Clock& clock_;
  const Millis period_;
  const std::function<void(TimePoint)> tick_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::function<void()>> tasks_;
  bool stopping_ = false;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace dsm::server
