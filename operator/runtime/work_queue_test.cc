#include "operator/runtime/work_queue.h"

#include <gtest/gtest.h>

#include <thread>

namespace dsm::runtime {
namespace {

class WorkQueueTest : public testing::Test {
 protected:
  bool due_now() { return queue_.stats().depth > 0; }

  ManualClock clock_;
  WorkQueue queue_{clock_, {.backoff_base = Millis(5), .backoff_max = Millis(40)}};
};

TEST_F(WorkQueueTest, HandsAKeyOutOnceHoweverOftenItWasAdded) {
  queue_.add("a");
  queue_.add("a");
  EXPECT_EQ(queue_.get(), "a");
  queue_.done("a");
  EXPECT_FALSE(due_now());
}

TEST_F(WorkQueueTest, AKeyAddedWhileWorkedOnComesOnceMoreAfterwards) {
  queue_.add("a");
  EXPECT_EQ(queue_.get(), "a");
  queue_.add("a");
  queue_.add("a");
  EXPECT_FALSE(due_now());
  queue_.done("a");
  EXPECT_EQ(queue_.get(), "a");
  queue_.done("a");
  EXPECT_FALSE(due_now());
}

TEST_F(WorkQueueTest, TheEarlierOfTwoDelaysWins) {
  queue_.add_after("a", Millis(100));
  queue_.add_after("a", Millis(10));
  queue_.add_after("a", Millis(50));
  clock_.advance(Millis(9));
  EXPECT_FALSE(due_now());
  clock_.advance(Millis(1));
  EXPECT_EQ(queue_.get(), "a");
}

TEST_F(WorkQueueTest, KeysComeInTheOrderInWhichTheyAreDue) {
  queue_.add_after("late", Millis(20));
  queue_.add_after("early", Millis(10));
  clock_.advance(Millis(30));
  EXPECT_EQ(queue_.get(), "early");
  EXPECT_EQ(queue_.get(), "late");
}

TEST_F(WorkQueueTest, BackoffDoublesPerKeyUpToTheMostAndForgetResetsIt) {
  for (const int expected : {5, 10, 20, 40, 40}) {
    queue_.add_backoff("a");
    clock_.advance(Millis(expected - 1));
    EXPECT_FALSE(due_now()) << expected;
    clock_.advance(Millis(1));
    EXPECT_EQ(queue_.get(), "a");
    queue_.done("a");
  }
  queue_.forget("a");
  queue_.add_backoff("a");
  clock_.advance(Millis(5));
  EXPECT_TRUE(due_now());
  EXPECT_EQ(queue_.stats().retries, 6U);
}

TEST_F(WorkQueueTest, StatsTellTheAgeOfWorkInProgress) {
  queue_.add("a");
  clock_.advance(Seconds(2));
  queue_.get();
  EXPECT_DOUBLE_EQ(queue_.stats().last_wait_s, 2);
  clock_.advance(Seconds(3));
  EXPECT_DOUBLE_EQ(queue_.stats().longest_running_s, 3);
}

TEST_F(WorkQueueTest, ShutDownWakesAWaitingWorker) {
  std::thread worker([&] { EXPECT_EQ(queue_.get(), std::nullopt); });
  queue_.shut_down();
  worker.join();
}

TEST(WorkQueueOnTheSystemClock, NoKeyIsEverWorkedOnTwiceAtOnce) {
  SystemClock clock;
  WorkQueue queue(clock);
  std::atomic<int> inside[4] = {};
  std::atomic<int> worked = 0;
  auto work = [&] {
    while (const auto key = queue.get()) {
      const int index = (*key)[0] - '0';
      EXPECT_EQ(inside[index].fetch_add(1), 0);
      worked.fetch_add(1);
      inside[index].fetch_sub(1);
      queue.done(*key);
    }
  };
  std::thread first(work);
  std::thread second(work);
  for (int i = 0; i < 2000; ++i) queue.add(std::to_string(i % 4));
  while (queue.stats().depth > 0) std::this_thread::yield();
  queue.shut_down();
  first.join();
  second.join();
  EXPECT_GE(worked.load(), 4);
}

}  // namespace
}  // namespace dsm::runtime
