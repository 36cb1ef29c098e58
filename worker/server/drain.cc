#include "worker/server/drain.h"

#include <algorithm>

namespace dsm::server {

TimePoint Drain::refuse_at_locked() const {
  const TimePoint latest = begun_at_ + limits_.unready + limits_.finish / 2;
  return std::min(last_entered_ + limits_.unready, latest);
}

bool Drain::refusing_locked() const {
  return begun_ && (hurry_ || clock_.now() >= refuse_at_locked());
}

bool Drain::enter() {
  const std::lock_guard lock(mutex_);
  if (refusing_locked()) return false;
  ++in_flight_;
  if (begun_) last_entered_ = clock_.now();
  return true;
}

void Drain::leave() {
  const std::lock_guard lock(mutex_);
  --in_flight_;
  changed_.notify_all();
}

void Drain::begin(bool at_once) {
  {
    const std::lock_guard lock(mutex_);
    if (at_once) limits_.unready = Millis(0);
    if (begun_) return;
    begun_ = true;
    begun_at_ = last_entered_ = clock_.now();
  }
  if (on_begin_) on_begin_();
}

bool Drain::begun() const {
  const std::lock_guard lock(mutex_);
  return begun_;
}

void Drain::hurry() {
  const std::lock_guard lock(mutex_);
  hurry_ = true;
  changed_.notify_all();
}

bool Drain::wait() {
  std::unique_lock lock(mutex_);
  const TimePoint limit = begun_at_ + limits_.unready + limits_.finish;
  while (!refusing_locked()) clock_.wait_until(changed_, lock, refuse_at_locked());
  while (!hurry_ && in_flight_ > 0 && clock_.now() < limit) {
    clock_.wait_until(changed_, lock, limit);
  }
  return in_flight_ == 0;
}

int Drain::in_flight() const {
  const std::lock_guard lock(mutex_);
  return in_flight_;
}

}  // namespace dsm::server
