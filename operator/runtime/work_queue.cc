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

void WorkQueue::add_locked(const std::string& key, TimePoint now, bool urgent) {
  drop_delay(key);
  if (working_since_.contains(key)) {
    again_[key] |= urgent;
    return;
  }
  const auto [at, fresh] = waiting_.try_emplace(key, Waiting{now, urgent});
  if (!fresh && (at->second.urgent || !urgent)) return;
  at->second.urgent = urgent;
  (urgent ? urgent_ : routine_).push(key);
  if (!fresh) return;
  if (observer_.added) observer_.added();
  if (observer_.depth) observer_.depth(waiting_.size());
  changed_.notify_one();
}

void WorkQueue::add(const std::string& key) {
  const std::lock_guard lock(mutex_);
  add_locked(key, clock_.now(), /*urgent=*/true);
}

void WorkQueue::add_after(const std::string& key, Millis delay) {
  const std::lock_guard lock(mutex_);
  const TimePoint now = clock_.now();
  if (delay.count() <= 0) return add_locked(key, now, /*urgent=*/true);
  if (waiting_.contains(key)) return;  // it comes sooner
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
    add_locked(key, now, /*urgent=*/false);
  }
}

std::optional<std::string> WorkQueue::next() {
  while (!routine_.empty()) {  // those that became urgent, or were taken as such
    const auto at = waiting_.find(routine_.front());
    if (at != waiting_.end() && !at->second.urgent) break;
    routine_.pop();
  }
  const bool urgent = !urgent_.empty() && (routine_.empty() || urgent_in_a_row_ < kUrgentInARow);
  std::queue<std::string>& queue = urgent ? urgent_ : routine_;
  if (queue.empty()) return std::nullopt;
  urgent_in_a_row_ = urgent ? urgent_in_a_row_ + 1 : 0;
  std::string key = std::move(queue.front());
  queue.pop();
  return key;
}

std::optional<std::string> WorkQueue::take_locked() {
  const TimePoint now = clock_.now();
  move_due(now);
  std::optional<std::string> key = next();
  if (!key) return std::nullopt;
  if (observer_.waited) observer_.waited(seconds(now - waiting_.at(*key).since));
  waiting_.erase(*key);
  if (observer_.depth) observer_.depth(waiting_.size());
  working_since_[*key] = now;
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
  if (const auto again = again_.extract(key)) add_locked(key, now, again.mapped());
}

std::size_t WorkQueue::depth() const {
  const std::lock_guard lock(mutex_);
  return waiting_.size();
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
