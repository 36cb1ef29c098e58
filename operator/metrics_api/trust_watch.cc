#include "operator/metrics_api/trust_watch.h"

namespace dsm::metrics_api {

TrustWatch::TrustWatch(kube::Client& reads, Logger log) : reads_(reads), log_(std::move(log)) {}

TrustWatch::~TrustWatch() {
  stop();
}

void TrustWatch::start() {
  kube::WatcherOptions options;
  options.resource = kube::kConfigMaps;
  options.ns = kTrustNamespace;
  options.field_selector = "metadata.name=" + std::string(kTrustName);
  watcher_ = std::make_unique<kube::Watcher>(
      reads_, std::move(options),
      [this](const std::vector<kube::WatchEvent>& events) { take(events); }, log_);
}

void TrustWatch::stop() {
  watcher_.reset();
}

std::shared_ptr<const Trust> TrustWatch::trust() const {
  const std::lock_guard lock(mutex_);
  return trust_;
}

void TrustWatch::take(const std::vector<kube::WatchEvent>& events) {
  for (const kube::WatchEvent& event : events) {
    const bool there = event.kind == kube::WatchEvent::Kind::kInitApply ||
                       event.kind == kube::WatchEvent::Kind::kApply;
    if (!there) continue;
    auto trust = trust_of(event.object);
    if (!trust) {
      log_.info("the metrics api cannot tell callers apart", {{"error", trust.error().message}});
      continue;
    }
    auto next = std::make_shared<const Trust>(*std::move(trust));
    const std::lock_guard lock(mutex_);
    trust_ = std::move(next);
  }
}

}  // namespace dsm::metrics_api
