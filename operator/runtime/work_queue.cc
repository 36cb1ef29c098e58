#include "operator/runtime/work_queue.h"

#include <algorithm>

namespace dsm::runtime {
namespace {

double seconds(TimePoint::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

}  // namespace

WorkQueue::WorkQueue(Clock& clock, QueueObserver observer)
    : clock_(clock), observer_(std::move(observer)) {}

void WorkQueue::add_locked(const std::string& key, TimePoint now) {
  drop_delay(key);
  if (working_since_.contains(key)) {
    again_.insert(key);
    return;
  }
  if (!waiting_since_.emplace(key, now).second) return;
  ready_.push(key);
  if (observer_.added) observer_.added();
  if (observer_.depth) observer_.depth(ready_.size());
  changed_.notify_one();
}

void WorkQueue::add(const std::string& key) {
  const std::lock_guard lock(mutex_);
  add_locked(key, clock_.now());
}

void WorkQueue::add_after(const std::string& key, Millis delay) {
  const std::lock_guard lock(mutex_);
  const TimePoint now = clock_.now();
  if (delay.count() <= 0) return add_locked(key, now);
  if (waiting_since_.contains(key)) return;  // it comes sooner
  const TimePoint when = now + delay;
  const auto known = delayed_.find(key);
  if (known != delayed_.end() && known->second <= when) return;
  drop_delay(key);
  delayed_[key] = when;
  order_.emplace(when, key);
  changed_.notify_one();
}

void WorkQueue::add_backoff(const std::string& key) {
  Millis delay{0};
  {
    const std::lock_guard lock(mutex_);
    const int failures = std::min(failures_[key]++, 30);
    delay = std::min(kFirstBackoff * (std::int64_t{1} << failures), kLongestBackoff);
    if (observer_.retried) observer_.retried();
  }
  add_after(key, delay);
}

void WorkQueue::forget(const std::string& key) {
  const std::lock_guard lock(mutex_);
  failures_.erase(key);
}

void WorkQueue::drop_delay(const std::string& key) {
  const auto at = delayed_.find(key);
  if (at == delayed_.end()) return;
  order_.erase({at->second, key});
  delayed_.erase(at);
}

void WorkQueue::move_due(TimePoint now) {
  while (!order_.empty() && order_.begin()->first <= now) {
    const std::string key = order_.begin()->second;
    add_locked(key, now);
  }
}

std::optional<std::string> WorkQueue::take_locked() {
  const TimePoint now = clock_.now();
  move_due(now);
  if (ready_.empty()) return std::nullopt;
  std::string key = std::move(ready_.front());
  ready_.pop();
  if (observer_.depth) observer_.depth(ready_.size());
  if (observer_.waited) observer_.waited(seconds(now - waiting_since_[key]));
  waiting_since_.erase(key);
  working_since_[key] = now;
  return key;
}

std::optional<std::string> WorkQueue::try_take() {
  const std::lock_guard lock(mutex_);
  return take_locked();
}

std::optional<std::string> WorkQueue::take(const std::stop_token& stop) {
  const std::stop_callback wake(stop, [this] {
    const std::lock_guard lock(mutex_);
    changed_.notify_all();
  });
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    if (std::optional<std::string> key = take_locked()) return key;
    const TimePoint next = order_.empty() ? TimePoint::max() : order_.begin()->first;
    clock_.wait_until(changed_, lock, next);
  }
  return std::nullopt;
}

void WorkQueue::done(const std::string& key) {
  const std::lock_guard lock(mutex_);
  const TimePoint now = clock_.now();
  const auto at = working_since_.find(key);
  if (at == working_since_.end()) return;
  if (observer_.worked) observer_.worked(seconds(now - at->second));
  working_since_.erase(at);
  if (again_.erase(key) > 0) add_locked(key, now);
}

std::size_t WorkQueue::depth() const {
  const std::lock_guard lock(mutex_);
  return ready_.size();
}

std::pair<double, double> WorkQueue::under_work() const {
  const std::lock_guard lock(mutex_);
  const TimePoint now = clock_.now();
  double all = 0;
  double longest = 0;
  for (const auto& [key, since] : working_since_) {
    all += seconds(now - since);
    longest = std::max(longest, seconds(now - since));
  }
  return {all, longest};
}

}  // namespace dsm::runtime
