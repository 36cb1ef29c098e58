#include "operator/runtime/work_queue.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace dsm::runtime {
namespace {

class Queue : public ::testing::Test {
 protected:
  // The key that can be taken now, "" when there is none.
  std::string now() { return queue_.try_take().value_or(""); }

  ManualClock clock_;
  WorkQueue queue_{clock_};
};

TEST_F(Queue, AKeyIsThereOnceHoweverOftenItWasAdded) {
  queue_.add("a");
  queue_.add("b");
  queue_.add("a");
  EXPECT_EQ(queue_.depth(), 2u);
  EXPECT_EQ(now(), "a");
  EXPECT_EQ(now(), "b");
  EXPECT_EQ(now(), "");
}

TEST_F(Queue, AKeyUnderWorkIsNotGivenOutAgainUntilItIsDone) {
  queue_.add("a");
  EXPECT_EQ(now(), "a");
  queue_.add("a");
  queue_.add("a");
  EXPECT_EQ(now(), "");
  queue_.done("a");
  EXPECT_EQ(now(), "a");
  queue_.done("a");
  EXPECT_EQ(now(), "");
}

TEST_F(Queue, TheEarliestDelayCounts) {
  queue_.add_after("a", Seconds(10));
  queue_.add_after("a", Seconds(5));
  queue_.add_after("a", Seconds(20));
  EXPECT_EQ(now(), "");
  clock_.advance(Seconds(5));
  EXPECT_EQ(now(), "a");
  queue_.done("a");
  clock_.advance(Seconds(60));
  EXPECT_EQ(now(), "");
}

TEST_F(Queue, AddingNowReplacesADelay) {
  queue_.add_after("a", Seconds(10));
  queue_.add("a");
  EXPECT_EQ(now(), "a");
  queue_.done("a");
  clock_.advance(Seconds(10));
  EXPECT_EQ(now(), "");
}

TEST_F(Queue, WhatHappenedGoesBeforeWhatWasPutOff) {
  queue_.add_after("late 1", Seconds(1));
  queue_.add_after("late 2", Seconds(2));
  queue_.add_after("late 3", Seconds(3));
  clock_.advance(Seconds(5));
  EXPECT_EQ(now(), "late 1");  // and the others are due
  queue_.add("edited");
  queue_.add("late 3");
  EXPECT_EQ(queue_.depth(), 3u);
  EXPECT_EQ(now(), "edited");
  EXPECT_EQ(now(), "late 3");
  EXPECT_EQ(now(), "late 2");
  EXPECT_EQ(now(), "");
}

TEST_F(Queue, WhatWasPutOffIsNotPutOffForEver) {
  queue_.add_after("late", Seconds(1));
  clock_.advance(Seconds(1));
  int before = 0;
  do {
    queue_.add("busy " + std::to_string(before));
    queue_.add("busier " + std::to_string(before));
  } while (now() != "late" && ++before < 100);
  EXPECT_EQ(before, WorkQueue::kUrgentInARow);
}

TEST_F(Queue, AnEditGoesBeforeNewsAndNewsBeforeWhatWasPutOff) {
  queue_.add_after("late", Seconds(1));
  queue_.add("news 1");
  queue_.add("news 2");
  queue_.add("edit 1", Urgency::kEdit);
  queue_.add("news 2", Urgency::kEdit);
  queue_.add("edit 1");  // stays what it is
  EXPECT_EQ(queue_.depth(), 3u);
  clock_.advance(Seconds(1));
  EXPECT_EQ(now(), "edit 1");
  EXPECT_EQ(now(), "news 2");
  EXPECT_EQ(now(), "news 1");
  EXPECT_EQ(now(), "late");
  EXPECT_EQ(now(), "");
}

TEST_F(Queue, ManyEditsHoldUpNobodyForEver) {
  queue_.add_after("late", Seconds(1));
  queue_.add("news");
  for (int i = 0; i < 100; ++i) queue_.add("edit " + std::to_string(i), Urgency::kEdit);
  clock_.advance(Seconds(1));
  std::vector<std::string> taken;
  for (int i = 0; i < 2 * WorkQueue::kUrgentInARow + 2; ++i) taken.push_back(now());
  EXPECT_EQ(taken[WorkQueue::kUrgentInARow], "late");
  EXPECT_EQ(taken[WorkQueue::kUrgentInARow + 1], "news");
  EXPECT_EQ(taken.back(), "edit 19");
}

TEST_F(Queue, NewsThatWaitedForMoreIsNewsThen) {
  queue_.add_after("late", Seconds(1));
  queue_.add_after("news", Seconds(2), Urgency::kNews);
  queue_.add_after("news", Seconds(1));
  queue_.add_after("news", Seconds(2), Urgency::kNews);
  clock_.advance(Seconds(1));
  EXPECT_EQ(now(), "news");
  EXPECT_EQ(now(), "late");
  clock_.advance(Seconds(5));
  EXPECT_EQ(now(), "");
}

TEST_F(Queue, AnEditDuringTheWorkIsOneAfterwards) {
  queue_.add("a");
  EXPECT_EQ(now(), "a");
  queue_.add("a", Urgency::kEdit);
  queue_.add("a");
  queue_.add("b");
  queue_.done("a");
  EXPECT_EQ(now(), "a");
  EXPECT_EQ(now(), "b");
}

TEST_F(Queue, UrgencyOutlivesTheWorkUnderWay) {
  queue_.add("a");
  EXPECT_EQ(now(), "a");
  queue_.add("a");
  queue_.add_after("b", Seconds(1));
  clock_.advance(Seconds(1));
  queue_.done("a");
  EXPECT_EQ(now(), "a");
  EXPECT_EQ(now(), "b");
}

TEST_F(Queue, FailuresBackOffPerKeyUntilForgotten) {
  for (const Millis delay : {Millis(5), Millis(10), Millis(20)}) {
    queue_.add_backoff("a");
    clock_.advance(delay - Millis(1));
    EXPECT_EQ(now(), "");
    clock_.advance(Millis(1));
    EXPECT_EQ(now(), "a");
    queue_.done("a");
  }
  queue_.add_backoff("b");
  clock_.advance(Millis(5));
  EXPECT_EQ(now(), "b");
  queue_.forget("a");
  queue_.add_backoff("a");
  clock_.advance(Millis(5));
  EXPECT_EQ(now(), "a");
}

TEST_F(Queue, TheLongestBackoffIsAThousandSeconds) {
  for (int i = 0; i < 40; ++i) {
    queue_.add_backoff("a");
    clock_.advance(Seconds(1000));
    ASSERT_EQ(now(), "a") << i;
    queue_.done("a");
  }
}

TEST_F(Queue, AStopWakesTheWaiter) {
  std::stop_source stop;
  std::optional<std::string> taken = "something";
  std::thread waiter([&] { taken = queue_.take(stop.get_token()); });
  stop.request_stop();
  waiter.join();
  EXPECT_EQ(taken, std::nullopt);
}

TEST(QueueThreads, NoKeyIsEverWorkedOnTwiceAtOnce) {
  SystemClock clock;
  WorkQueue queue(clock);
  std::stop_source stop;
  std::atomic<int> inside[3] = {};
  std::atomic<int> worked = 0;
  std::atomic<bool> twice = false;
  std::vector<std::thread> workers;
  for (int i = 0; i < 4; ++i) {
    workers.emplace_back([&] {
      while (const auto key = queue.take(stop.get_token())) {
        std::atomic<int>& mine = inside[(*key)[0] - 'a'];
        if (++mine != 1) twice = true;
        std::this_thread::yield();
        --mine;
        queue.done(*key);
        if (++worked == 200) stop.request_stop();
      }
    });
  }
  while (!stop.stop_requested()) {
    for (const char* key : {"a", "b", "c"}) queue.add(key);
    std::this_thread::yield();
  }
  for (std::thread& worker : workers) worker.join();
  EXPECT_FALSE(twice);
}

TEST_F(Queue, TimesAreReported) {
  std::vector<double> waited;
  std::vector<double> worked;
  QueueObserver observer;
  observer.waited = [&](double s) { waited.push_back(s); };
  observer.worked = [&](double s) { worked.push_back(s); };
  WorkQueue queue(clock_, observer);
  queue.add("a");
  clock_.advance(Seconds(2));
  ASSERT_TRUE(queue.take({}));
  clock_.advance(Seconds(3));
  EXPECT_EQ(queue.under_work(), std::pair(3.0, 3.0));
  queue.done("a");
  EXPECT_EQ(waited, std::vector{2.0});
  EXPECT_EQ(worked, std::vector{3.0});
}

}  // namespace
}  // namespace dsm::runtime
