#include "base/http/outbox.h"

#include <utility>

namespace dsm::http {

void Outbox::respond(Response response) {
  std::function<void()> dropped;  // destroyed without the lock: it may own what calls us
  std::lock_guard lock(mutex_);
  if (closed_ || started_ || finished_) return;
  started_ = finished_ = true;
  dropped = std::exchange(on_close_, nullptr);
  pending_.response = std::move(response);
  pending_.finished = true;
  wake_locked();
}

void Outbox::start(int status, Headers headers) {
  std::lock_guard lock(mutex_);
  if (closed_ || started_) return;
  started_ = true;
  pending_.head = Head{status, std::move(headers)};
  wake_locked();
}

void Outbox::write(std::string chunk) {
  std::lock_guard lock(mutex_);
  if (closed_ || !started_ || finished_ || chunk.empty()) return;
  buffered_.fetch_add(chunk.size(), std::memory_order_relaxed);
  if (pending_.data.empty()) {
    pending_.data = std::move(chunk);
  } else {
    pending_.data += chunk;
  }
  wake_locked();
}

void Outbox::finish() {
  std::function<void()> dropped;
  std::lock_guard lock(mutex_);
  if (closed_ || !started_ || finished_) return;
  finished_ = true;
  dropped = std::exchange(on_close_, nullptr);
  pending_.finished = true;
  wake_locked();
}

void Outbox::abandon() {
  std::lock_guard lock(mutex_);
  if (closed_ || finished_) return;
  finished_ = true;
  pending_.abandoned = true;
  wake_locked();
}

void Outbox::on_close(std::function<void()> callback) {
  {
    std::lock_guard lock(mutex_);
    if (finished_) return;
    if (!closed_) {
      on_close_ = std::move(callback);
      return;
    }
  }
  callback();
}

Outbox::Taken Outbox::take() {
  std::lock_guard lock(mutex_);
  return std::exchange(pending_, Taken{});
}

bool Outbox::finished() const {
  std::lock_guard lock(mutex_);
  return finished_;
}

void Outbox::close() {
  // Called and destroyed without the lock, for they may own what calls us.
  std::function<void()> callback;
  std::function<void()> wake;
  bool early = false;
  {
    std::lock_guard lock(mutex_);
    if (closed_) return;
    closed_.store(true, std::memory_order_release);
    wake = std::exchange(wake_, nullptr);
    callback = std::exchange(on_close_, nullptr);
    pending_ = Taken{};
    early = !finished_;
  }
  if (early && callback) callback();
}

}  // namespace dsm::http
