#include "operator/runtime/work_queue.h"

#include <algorithm>

namespace dsm::runtime {
namespace {

double seconds(std::chrono::steady_clock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

}  // namespace

WorkQueue::WorkQueue(Clock& clock, WorkQueueOptions options) : clock_(clock), options_(options) {}

void WorkQueue::add(const std::string& key) {
  add_after(key, Millis(0));
}

void WorkQueue::add_after(const std::string& key, Millis delay) {
  std::lock_guard lock(mutex_);
  add_at(key, clock_.now() + delay);
}

void WorkQueue::add_backoff(const std::string& key) {
  std::lock_guard lock(mutex_);
  ++retries_;
  int& failures = failures_[key];
  Millis delay = options_.backoff_base;
  for (int i = 0; i < failures && delay < options_.backoff_max; ++i) delay *= 2;
  ++failures;
  add_at(key, clock_.now() + std::min(delay, options_.backoff_max));
}

void WorkQueue::forget(const std::string& key) {
  std::lock_guard lock(mutex_);
  failures_.erase(key);
}

void WorkQueue::add_at(const std::string& key, TimePoint due) {
  if (stopped_) return;
  ++adds_;
  if (running_.contains(key)) {
    const auto [entry, is_new] = again_.try_emplace(key, due);
    if (!is_new) entry->second = std::min(entry->second, due);
    return;
  }
  const auto [entry, is_new] = due_.try_emplace(key, due);
  if (!is_new) {
    if (entry->second <= due) return;
    order_.erase({entry->second, key});
    entry->second = due;
  }
  order_.emplace(due, key);
  changed_.notify_one();
}

std::optional<std::string> WorkQueue::get() {
  std::unique_lock lock(mutex_);
  while (!stopped_) {
    if (order_.empty()) {
      clock_.wait_until(changed_, lock, TimePoint::max());
      continue;
    }
    const auto [due, key] = *order_.begin();
    const TimePoint now = clock_.now();
    if (due > now) {
      clock_.wait_until(changed_, lock, due);
      continue;
    }
    order_.erase(order_.begin());
    due_.erase(key);
    running_.emplace(key, now);
    last_wait_s_ = seconds(now - due);
    // Another thread may have been woken for this key alone while more are due.
    if (!order_.empty()) changed_.notify_one();
    return key;
  }
  return std::nullopt;
}

void WorkQueue::done(const std::string& key) {
  std::lock_guard lock(mutex_);
  running_.erase(key);
  const auto again = again_.find(key);
  if (again == again_.end()) return;
  const TimePoint due = again->second;
  again_.erase(again);
  --adds_;  // counted when it was added
  add_at(key, due);
}

void WorkQueue::shut_down() {
  std::lock_guard lock(mutex_);
  stopped_ = true;
  changed_.notify_all();
}

WorkQueue::Stats WorkQueue::stats() const {
  std::lock_guard lock(mutex_);
  Stats stats;
  const TimePoint now = clock_.now();
  for (const auto& [due, key] : order_) {
    if (due > now) break;
    ++stats.depth;
  }
  stats.adds = adds_;
  stats.retries = retries_;
  stats.last_wait_s = last_wait_s_;
  for (const auto& [key, since] : running_) {
    const double age = seconds(now - since);
    stats.unfinished_s += age;
    stats.longest_running_s = std::max(stats.longest_running_s, age);
  }
  return stats;
}

}  // namespace dsm::runtime
