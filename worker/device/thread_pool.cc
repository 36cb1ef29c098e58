#include "worker/device/thread_pool.h"

#include <stdexcept>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace dsm::device {
namespace {

constexpr std::uint64_t kItemMask = (1 << 20) - 1;
// Rounds of a helper's spinning, some tens of microseconds.
constexpr int kSpins = 2000;

void relax() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

struct Ticket {
  std::uint64_t word;
  int items() const { return static_cast<int>(word >> 20 & kItemMask); }
  int next() const { return static_cast<int>(word & kItemMask); }
  bool open() const { return next() < items(); }
};

}  // namespace

ThreadPool::ThreadPool(int threads) {
  for (int i = 1; i < threads; ++i) helpers_.emplace_back([this] { help(); });
}

ThreadPool::~ThreadPool() {
  stopping_.store(true);
  wakes_.fetch_add(1);
  wakes_.notify_all();
  for (auto& helper : helpers_) helper.join();
}

void ThreadPool::fork_join(int items, Call call, const void* context) {
  if (items > kMaxItems) throw std::logic_error("a job has more items than a ticket can count");
  // Nobody touches these now: all items of the last job are done, and a claim against its ticket
  // fails.
  call_.store(call, std::memory_order_relaxed);
  context_.store(context, std::memory_order_relaxed);
  done_.store(0, std::memory_order_relaxed);
  const std::uint64_t generation = (ticket_.load(std::memory_order_relaxed) >> 40) + 1;
  ticket_.store(generation << 40 | static_cast<std::uint64_t>(items) << 20);
  // Sequentially consistent with help(): either the helper sees the ticket or we see the sleeper.
  if (sleepers_.load() > 0) {
    wakes_.fetch_add(1);
    wakes_.notify_all();
  }
  work_off();
  for (int round = 0; done_.load(std::memory_order_acquire) < items; ++round) {
    // A helper may have lost its core in the middle of an item.
    if (round < kSpins) {
      relax();
    } else {
      std::this_thread::yield();
    }
  }
}

void ThreadPool::work_off() {
  std::uint64_t word = ticket_.load(std::memory_order_acquire);
  while (Ticket{word}.open()) {
    if (!ticket_.compare_exchange_weak(word, word + 1, std::memory_order_acq_rel,
                                       std::memory_order_acquire)) {
      continue;
    }
    // The claimed item is not done yet, so the job, and with it what is read here, cannot change.
    call_.load(std::memory_order_relaxed)(context_.load(std::memory_order_relaxed),
                                          Ticket{word}.next());
    done_.fetch_add(1, std::memory_order_release);
    word = ticket_.load(std::memory_order_acquire);
  }
}

void ThreadPool::help() {
  int idle = 0;
  while (!stopping_.load(std::memory_order_relaxed)) {
    if (Ticket{ticket_.load(std::memory_order_acquire)}.open()) {
      work_off();
      idle = 0;
    } else if (++idle < kSpins) {
      relax();
    } else {
      const std::uint32_t seen = wakes_.load();
      sleepers_.fetch_add(1);
      if (!Ticket{ticket_.load()}.open() && !stopping_.load()) wakes_.wait(seen);
      sleepers_.fetch_sub(1);
      idle = 0;
    }
  }
}

}  // namespace dsm::device
