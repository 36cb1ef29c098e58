#include "operator/plan/load.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace dsm::plan {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

class Load : public testing::Test {
 protected:
  // A leader pod, with a line of that age; -1: it says nothing.
  PodView& leader(const std::string& uid, int age_s, long queue = 0) {
    PodView pod;
    pod.uid = uid;
    pod.name = "m-" + uid;
    pod.owner_uid = "model";
    pod.index = 0;
    pod.ready = true;
    pods.push_back(pod);
    if (age_s >= 0) {
      LeaderStatus status;
      status.queue_depth = queue;
      status.queue_age_s = queue;
      status.running = 2;
      status.kv_used = 64;
      status.kv_total = 1000;
      status.received = now - Seconds(age_s);
      leaders[uid] = status;
    }
    return pods.back();
  }
  ModelLoad load() const { return load_of("m", "model", pods, leaders, now); }

  const WallTime now = from_rfc3339("2026-01-01T00:00:00Z");
  std::vector<PodView> pods;
  std::map<std::string, LeaderStatus> leaders;
};

TEST_F(Load, of_a_model_without_groups_is_known_and_zero) {
  EXPECT_THAT(load().unknown, IsEmpty());
  EXPECT_EQ(load().queue_depth, 0);
  EXPECT_EQ(load().time, now);
}

TEST_F(Load, is_the_sum_over_the_leaders_and_as_old_as_the_oldest_line) {
  leader("a", 1, 3);
  leader("b", 4, 5);
  EXPECT_THAT(load().unknown, IsEmpty());
  EXPECT_EQ(load().queue_depth, 8);
  EXPECT_EQ(load().queue_age_s, 5);
  EXPECT_EQ(load().running, 4);
  EXPECT_EQ(load().kv_used, 128);
  EXPECT_EQ(load().kv_total, 2000);
  EXPECT_EQ(load().time, now - Seconds(4));
}

TEST_F(Load, is_not_known_when_a_ready_leader_is_silent) {
  leader("a", 1, 3);
  leader("b", 6, 5);
  EXPECT_THAT(load().unknown, HasSubstr("m-b"));
  leaders["b"].received = now - kLoadStale;
  EXPECT_THAT(load().unknown, IsEmpty());
  leaders.erase("b");
  EXPECT_THAT(load().unknown, HasSubstr("m-b"));
}

TEST_F(Load, counts_what_an_unready_leader_still_has_and_does_not_wait_for_one_that_starts) {
  leader("recovers", 0, 7).ready = false;
  leader("starts", -1).ready = false;
  leader("drained", -1).deletion = now;
  EXPECT_THAT(load().unknown, IsEmpty());
  EXPECT_EQ(load().queue_depth, 7);
}

TEST_F(Load, is_not_known_when_a_leader_falls_silent_and_is_not_ready_any_more) {
  PodView& pod = leader("hangs", 6, 5);
  pod.ready = false;
  pod.running = true;
  pod.started = now - Seconds(60);
  EXPECT_THAT(load().unknown, HasSubstr("m-hangs"));
  pod.started = now - Seconds(1);  // what it had is lost
  EXPECT_THAT(load().unknown, IsEmpty());
  pod.started = now - Seconds(60);
  pod.running = false;
  EXPECT_THAT(load().unknown, IsEmpty());
}

TEST_F(Load, is_that_of_the_models_own_leaders) {
  leader("other", 0, 9).owner_uid = "an earlier model";
  leader("rank", 0, 9).index = 1;
  EXPECT_EQ(load().queue_depth, 0);
}

}  // namespace
}  // namespace dsm::plan
