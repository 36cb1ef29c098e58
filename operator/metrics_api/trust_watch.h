// Whom to believe, as the API server publishes it in one ConfigMap: watched, because it changes
// when an authority is renewed, and callers come with the new one at once. What was published last
// holds while it cannot be read. Thread-safe.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/log.h"
#include "kube/watcher.h"
#include "operator/metrics_api/identity.h"

namespace dsm::metrics_api {

class TrustWatch {
 public:
  // `reads` must outlive it.
  TrustWatch(kube::Client& reads, Logger log);
  ~TrustWatch();  // stop()
  TrustWatch(const TrustWatch&) = delete;
  TrustWatch& operator=(const TrustWatch&) = delete;

  void start();
  void stop();

  // nullptr: not known yet.
  std::shared_ptr<const Trust> trust() const;

 private:
  void take(const std::vector<kube::WatchEvent>& events);

  kube::Client& reads_;
  const Logger log_;
  mutable std::mutex mutex_;
  std::shared_ptr<const Trust> trust_;  // guarded by mutex_
  std::unique_ptr<kube::Watcher> watcher_;
};

}  // namespace dsm::metrics_api
