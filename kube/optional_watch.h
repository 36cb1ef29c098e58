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

// Asks, begins and ends the watch, one step at a time; OptionalWatch is its thread.
class OptionalKind {
 public:
  static constexpr Millis kAskEvery{30'000};
  static constexpr Millis kFirstAnswer{1'000};  // asked again after this until there is an answer

  // Told when it is first known whether the kind is there, and whenever that changes: true after
  // the first list was handed over, false after the last event.
  using Change = std::function<void(bool there)>;
  struct Watching {
    std::function<void(Watcher::Handler)> begin;  // a watch whose events go there
    std::function<void()> end;                    // it: no event comes afterwards
  };

  // `client` must outlive it; a watch that was begun must end before it does.
  OptionalKind(Client& client, const Resource& resource, Watching watching, Watcher::Handler events,
               Change change, Logger log);

  // Asks once. Returns the time after which to ask again.
  Millis step();

 private:
  void begin();
  void end();

  Client& client_;
  const Resource resource_;
  const Watching watching_;
  const Watcher::Handler events_;
  const Change change_;
  const Logger log_;
  std::atomic<bool> known_ = false;  // these two also on the watch's thread
  std::atomic<bool> listed_ = false;
  bool watches_ = false;
};

class OptionalWatch {
 public:
  using Change = OptionalKind::Change;

  // `client` must outlive it. Starts at once; the handlers run on threads of its own.
  OptionalWatch(Client& client, WatcherOptions options, Watcher::Handler events, Change change,
                const Logger& log);

  // Returns before the threads have ended; the destructor waits for them.
  void request_stop() { thread_.request_stop(); }

 private:
  OptionalKind kind_;
  std::unique_ptr<Watcher> watcher_;  // of the thread alone; null: the kind is not there
  std::jthread thread_;
};

// Whether the server has the kind. A user who may not ask may not use it either: that is a no.
ApiResult<bool> is_served(Client& client, const Resource& resource);

}  // namespace dsm::kube
