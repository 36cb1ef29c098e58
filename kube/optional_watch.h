// The watch of a kind that a cluster may have or not, and that may be installed or removed at any
// time. The API server's discovery is asked now and then, which takes no rights and one small
// answer; while the kind is there, it is listed and watched like any other.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <thread>

#include "base/log.h"
#include "kube/client.h"
#include "kube/watcher.h"

namespace dsm::kube {

class OptionalWatch {
 public:
  static constexpr Millis kAskEvery{30'000};
  static constexpr Millis kFirstAnswer{1'000};  // asked again after this until there is an answer

  // Told when it is first known whether the kind is there, and whenever that changes: true after
  // the first list was handed over, false after the last event.
  using Change = std::function<void(bool there)>;

  // `client` must outlive it. Starts at once; the handlers run on threads of its own.
  OptionalWatch(Client& client, WatcherOptions options, Watcher::Handler events, Change change,
                const Logger& log);

  // Returns before the threads have ended; the destructor waits for them.
  void request_stop() { thread_.request_stop(); }

 private:
  void run(const std::stop_token& stop);
  void begin();
  void end();

  Client& client_;
  const WatcherOptions options_;
  const Watcher::Handler events_;
  const Change change_;
  const Logger log_;
  std::atomic<bool> known_ = false;
  std::atomic<bool> listed_ = false;
  std::unique_ptr<Watcher> watcher_;  // of the thread alone; null: the kind is not there
  std::jthread thread_;
};

// Whether the server has the kind. A user who may not ask may not use it either: that is a no.
ApiResult<bool> is_served(Client& client, const Resource& resource);

}  // namespace dsm::kube
