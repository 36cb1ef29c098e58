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

void WorkQueue::add_locked(const std::string& key, TimePoint now, Urgency urgency) {
  drop_delay(key);
  if (working_since_.contains(key)) {
    Urgency& again = again_.try_emplace(key, urgency).first->second;
    again = std::max(again, urgency);
    return;
  }
  const auto [at, fresh] = waiting_.try_emplace(key, Waiting{now, urgency});
  if (!fresh && urgency <= at->second.urgency) return;
  at->second.urgency = urgency;
  line(urgency).keys.push(key);
  if (!fresh) return;
  if (observer_.added) observer_.added();
  if (observer_.depth) observer_.depth(waiting_.size());
  changed_.notify_one();
}

void WorkQueue::add(const std::string& key, Urgency urgency) {
  const std::lock_guard lock(mutex_);
  add_locked(key, clock_.now(), urgency);
}

void WorkQueue::add_after(const std::string& key, Millis delay, Urgency urgency) {
  const std::lock_guard lock(mutex_);
  const TimePoint now = clock_.now();
  if (delay.count() <= 0) return add_locked(key, now, std::max(urgency, Urgency::kNews));
  if (waiting_.contains(key)) return;  // it comes sooner
  const TimePoint when = now + delay;
  if (const auto known = delayed_.find(key); known != delayed_.end()) {
    known->second.urgency = std::max(known->second.urgency, urgency);
    if (known->second.when <= when) return;
    urgency = known->second.urgency;
    drop_delay(key);
  }
  delayed_[key] = {when, urgency};
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
  order_.erase({at->second.when, key});
  delayed_.erase(at);
}

void WorkQueue::move_due(TimePoint now) {
  while (!order_.empty() && order_.begin()->first <= now) {
    const std::string key = order_.begin()->second;
    add_locked(key, now, delayed_.at(key).urgency);
  }
}

// From the heads of the lines: keys that became more urgent, or were taken as such.
void WorkQueue::drop_moved() {
  for (const Urgency urgency : {Urgency::kPutOff, Urgency::kNews}) {
    std::queue<std::string>& keys = line(urgency).keys;
    while (!keys.empty()) {
      const auto at = waiting_.find(keys.front());
      if (at != waiting_.end() && at->second.urgency == urgency) break;
      keys.pop();
    }
  }
}

std::optional<std::string> WorkQueue::next() {
  drop_moved();
  Line* first = nullptr;
  for (Line& each : lines_) {  // the least urgent ones first: one that was passed often is due
    if (each.keys.empty()) continue;
    first = &each;
    if (each.passed >= kUrgentInARow) break;
  }
  if (first == nullptr) return std::nullopt;
  for (Line& each : lines_) {
    if (&each == first) break;
    each.passed += each.keys.empty() ? 0 : 1;
  }
  first->passed = 0;
  std::string key = std::move(first->keys.front());
  first->keys.pop();
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
