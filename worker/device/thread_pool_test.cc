#include "worker/device/thread_pool.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

namespace dsm::device {
namespace {

TEST(ThreadPool, DoesEveryItemOnceInEveryJob) {
  for (const int threads : {1, 2, 4}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (int job = 0; job < 2000; ++job) {
      std::vector<int> count(static_cast<std::size_t>(job % 17));
      pool.run(job % 17, [&](int i) { ++count[static_cast<std::size_t>(i)]; });
      EXPECT_EQ(std::accumulate(count.begin(), count.end(), 0), job % 17);
      for (const int c : count) EXPECT_EQ(c, 1);
    }
  }
}

TEST(ThreadPool, ShowsThatItGetsOn) {
  for (const int threads : {1, 3}) {
    ThreadPool pool(threads);
    std::uint64_t before = pool.moves();
    pool.run(5, [](int) {});
    EXPECT_NE(pool.moves(), before);
    before = pool.moves();
    pool.run(1, [&](int) { EXPECT_NE(pool.moves(), before); });
    EXPECT_EQ(pool.moves(), before + 1);
  }
}

TEST(ThreadPool, WakesHelpersThatSleep) {
  ThreadPool pool(2);
  // The first item waits for the second: the job can end only if a helper takes part.
  for (int job = 0; job < 20; ++job) {
    std::atomic<int> begun{0};
    pool.run(2, [&](int) {
      begun.fetch_add(1);
      while (begun.load() < 2) std::this_thread::yield();
    });
    EXPECT_EQ(begun.load(), 2);
    // Longer than a helper spins, so the next job finds it asleep.
    const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(2);
    while (std::chrono::steady_clock::now() < until) std::this_thread::yield();
  }
}

TEST(ThreadPool, StopsWhileNothingWasEverRun) {
  ThreadPool pool(3);
}

}  // namespace
}  // namespace dsm::device
