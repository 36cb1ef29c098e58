#include "operator/metrics_api/asker.h"

#include <utility>

namespace dsm::metrics_api {

void Asker::start() {
  const std::lock_guard lock(mutex_);
  running_ = true;
  thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
}

void Asker::stop() {
  {
    std::deque<Question> dropped;  // what they hold goes without the lock
    const std::lock_guard lock(mutex_);
    running_ = false;
    dropped.swap(waiting_);
  }
  if (!thread_.joinable()) return;
  thread_.request_stop();
  thread_.join();
}

bool Asker::add(Question question) {
  const std::lock_guard lock(mutex_);
  if (!running_ || waiting_.size() >= kMost) return false;
  waiting_.push_back(std::move(question));
  changed_.notify_one();
  return true;
}

void Asker::run(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (changed_.wait(lock, stop, [this] { return !waiting_.empty(); })) {
    Question next = std::move(waiting_.front());
    waiting_.pop_front();
    lock.unlock();
    next();
    next = nullptr;  // what it holds goes without the lock
    lock.lock();
  }
}

}  // namespace dsm::metrics_api
