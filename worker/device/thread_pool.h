// Fork and join for one rank's kernels. The owner's thread works too; helpers spin for some
// microseconds after a job, because the next one is near while a step runs, and then sleep until
// they are woken.
//
// Work is claimed item by item, and the owner waits only for items that somebody has begun: a
// helper that the operating system does not run costs nothing but its help. run() is for one thread
// at a time, the owner.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace dsm::device {

class ThreadPool {
 public:
  // `threads` counts the owner: 1 starts none.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(helpers_.size()) + 1; }

  // Calls work(i) for each i in [0, items), in any order, on any of the threads; returns when all
  // are done. `work` does not throw. Items beyond kMaxItems are an error of the caller.
  template <class Work>
  void run(int items, const Work& work) {
    if (helpers_.empty() || items <= 1) {
      for (int i = 0; i < items; ++i) {
        alone_.store(alone_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
        work(i);
      }
      return;
    }
    fork_join(
        items, [](const void* context, int i) { (*static_cast<const Work*>(context))(i); }, &work);
  }

  // Another number whenever an item has been claimed. Any thread may ask.
  std::uint64_t moves() const {
    return ticket_.load(std::memory_order_relaxed) + alone_.load(std::memory_order_relaxed);
  }

  static constexpr int kMaxItems = (1 << 20) - 1;

 private:
  using Call = void (*)(const void* context, int item);

  void fork_join(int items, Call call, const void* context);
  void help();
  // Claims and does items of the current job until none is left.
  void work_off();

  // generation << 40 | items << 20 | next item. One word, so that a claim succeeds only in the job
  // it was read from.
  std::atomic<std::uint64_t> ticket_{0};
  std::atomic<std::uint64_t> alone_{0};  // items that the owner did without the helpers; its own
  std::atomic<int> done_{0};
  std::atomic<Call> call_{nullptr};
  std::atomic<const void*> context_{nullptr};

  std::atomic<int> sleepers_{0};
  std::atomic<std::uint32_t> wakes_{0};
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> helpers_;
};

}  // namespace dsm::device
