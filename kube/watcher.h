// The loop around the watch machine: one thread that lists and watches one kind and hands the
// events over, until it is stopped. The handler runs on that thread.
#pragma once

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "base/log.h"
#include "kube/client.h"
#include "kube/watch.h"

namespace dsm::kube {

struct WatcherOptions {
  Resource resource;
  std::string ns;  // "": all namespaces
  std::string label_selector;
  std::string field_selector = {};
  // The server sends a bookmark about every minute: longer silence means a dead connection.
  Millis idle_timeout{150'000};
};

class Watcher {
 public:
  using Handler = std::function<void(std::vector<WatchEvent>)>;

  // `client` must outlive the watcher. Starts at once.
  Watcher(Client& client, WatcherOptions options, Handler handler, Logger log);
  ~Watcher();  // stops and joins
  Watcher(const Watcher&) = delete;
  Watcher& operator=(const Watcher&) = delete;

  // Returns before the thread has ended; the destructor waits for it.
  void request_stop() { thread_.request_stop(); }

 private:
  void run(const std::stop_token& stop);
  // Feeds the machine, hands its events over and returns what to do next.
  WatchAction feed(const WatchInput& input);
  WatchAction list(const WatchAction& action);
  WatchAction watch(const WatchAction& action, const std::stop_token& stop);

  Client& client_;
  const WatcherOptions options_;
  const Handler handler_;
  const Logger log_;
  WatchState state_;      // of the thread alone
  std::uint64_t random_;  // state of the jitter; of the thread alone
  std::jthread thread_;
};

}  // namespace dsm::kube
