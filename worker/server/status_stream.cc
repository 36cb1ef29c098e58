#include "worker/server/status_stream.h"

namespace dsm::server {
namespace {

constexpr std::size_t kMaxBuffered = 1 << 20;  // a listener so far behind is dropped
constexpr Millis kRateWindow{5000};

// In whole seconds, so that it changes, and makes a line, once a second.
long queue_age_s(const WorkerView& view, TimePoint now) {
  if (!view.engine || !view.engine->oldest_arrival) return 0;
  return std::chrono::duration_cast<Seconds>(now - *view.engine->oldest_arrival).count();
}

}  // namespace

StatusStream::StatusStream(std::function<WorkerView()> look, Identity identity, Clock& clock)
    : look_(std::move(look)),
      identity_(std::move(identity)),
      clock_(clock),
      thread_([this] { run(); }) {}

StatusStream::~StatusStream() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void StatusStream::add(std::shared_ptr<http::Exchange> listener) {
  listener->start(200, {{"Content-Type", "application/x-ndjson"}, {"Cache-Control", "no-cache"}});
  {
    const std::lock_guard lock(mutex_);
    added_.push_back(std::move(listener));
  }
  changed_.notify_all();
}

// Tokens generated per second over the last seconds.
double StatusStream::rate(std::uint64_t generated, TimePoint now) {
  generated_.emplace_back(now, generated);
  while (generated_.size() > 2 && now - generated_[1].first >= kRateWindow) generated_.pop_front();
  const auto& [then, before] = generated_.front();
  const double seconds = std::chrono::duration<double>(now - then).count();
  return seconds > 0 ? static_cast<double>(generated - before) / seconds : 0;
}

// False when the listener has gone.
bool StatusStream::serve(Listener& listener, const std::string& status, TimePoint now) {
  if (listener.exchange->closed() || listener.exchange->buffered_bytes() > kMaxBuffered) {
    return false;
  }
  if (status == listener.last && now - listener.sent_at < kLongest) return true;
  listener.exchange->write(with_time(status, clock_.wall_now()) + "\n");
  listener.last = status;
  listener.sent_at = now;
  return true;
}

void StatusStream::run() {
  std::vector<Listener> listeners;
  TimePoint next = clock_.now();
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (added_.empty() && listeners.empty()) {
      clock_.wait_until(changed_, lock, clock_.now() + kLongest);
      continue;
    }
    if (added_.empty() && clock_.now() < next) {
      clock_.wait_until(changed_, lock, next);
      continue;
    }
    if (listeners.empty()) generated_.clear();
    for (auto& exchange : added_) listeners.push_back({std::move(exchange), "", TimePoint()});
    added_.clear();
    lock.unlock();
    const TimePoint now = clock_.now();
    WorkerView view = look_();
    view.tokens_per_second = rate(view.engine ? view.engine->generation_tokens : 0, now);
    view.queue_age_s = queue_age_s(view, now);
    const std::string status = status_json(view, identity_);
    std::erase_if(listeners, [&](Listener& one) { return !serve(one, status, now); });
    next = now + kShortest;
    lock.lock();
  }
  for (Listener& one : listeners) one.exchange->finish();
}

}  // namespace dsm::server
