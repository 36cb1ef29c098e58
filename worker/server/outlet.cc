#include "worker/server/outlet.h"

#include <future>
#include <memory>
#include <utility>

namespace dsm::server {

Outlet::Outlet(Clock& clock, Millis period, std::function<void(TimePoint)> tick)
    : clock_(clock),
      period_(period),
      tick_(std::move(tick)),
      // The time is taken here: a thread may begin late.
      thread_([this, first = clock.now() + period] { run(first); }) {}

Outlet::~Outlet() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void Outlet::post(std::function<void()> task) {
  {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  wake_.notify_all();
}

void Outlet::settle() {
  const auto done = std::make_shared<std::promise<void>>();
  post([done] { done->set_value(); });
  done->get_future().wait();
}

void Outlet::run(TimePoint next_tick) {
  for (;;) {
    std::vector<std::function<void()>> tasks;
    bool last = false;
    {
      std::unique_lock lock(mutex_);
      while (tasks_.empty() && !stopping_ && clock_.now() < next_tick) {
        clock_.wait_until(wake_, lock, next_tick);
      }
      tasks.swap(tasks_);
      last = stopping_ && tasks.empty();
    }
    if (last) return;
    for (auto& task : tasks) task();
    const TimePoint now = clock_.now();
    if (now >= next_tick) {
      tick_(now);
      next_tick = now + period_;
    }
  }
}

}  // namespace dsm::server
