#include "operator/plan/recovery.h"

#include <gtest/gtest.h>

#include "operator/api/reasons.h"
#include "operator/plan/groups.h"

namespace dsm::plan {
namespace {

const WallTime kNow = from_rfc3339("2026-01-01T00:00:00Z");
const RecoveryRule kRule{.max_restarts = 2, .window = Seconds(600)};

PodView running(int restarts, Seconds for_so_long) {
  PodView pod;
  pod.restarts = restarts;
  pod.running = true;
  pod.started = kNow - for_so_long;
  return pod;
}

PodView looping(int restarts) {
  PodView pod;
  pod.restarts = restarts;
  pod.waiting_reason = "CrashLoopBackOff";
  return pod;
}

api::GroupStatus said(int restarts, int recent) {
  api::GroupStatus status;
  status.restarts = restarts;
  status.recent_restarts = recent;
  return status;
}

TEST(Restarts, of_all_pods_are_added_to_those_that_were_recent_before) {
  const PodView a = running(3, Seconds(10));
  const PodView b = looping(4);
  const auto before = said(6, 1);
  const auto count = count_restarts({&a, &b, nullptr}, &before, kRule, kNow);
  EXPECT_EQ(count.all, 7);
  EXPECT_EQ(count.recent, 2);
  EXPECT_FALSE(count.stable_at);
}

TEST(Restarts, of_a_group_that_was_not_seen_before_are_all_recent) {
  const PodView a = running(2, Seconds(10));
  EXPECT_EQ(count_restarts({&a}, nullptr, kRule, kNow).recent, 2);
}

TEST(Restarts, are_not_counted_twice_and_not_below_zero) {
  const PodView a = running(1, Seconds(10));
  const auto same = said(1, 1);
  EXPECT_EQ(count_restarts({&a}, &same, kRule, kNow).recent, 1);
  const auto other_pod = said(5, 2);  // the pod was made again and begins at zero
  EXPECT_EQ(count_restarts({&a}, &other_pod, kRule, kNow).recent, 2);
}

TEST(Restarts, are_forgotten_when_every_container_has_run_for_the_window) {
  const PodView a = running(2, Seconds(700));
  const PodView b = running(0, Seconds(599));
  const auto before = said(2, 2);
  auto count = count_restarts({&a, &b}, &before, kRule, kNow);
  EXPECT_EQ(count.recent, 2);
  EXPECT_EQ(count.stable_at, kNow + Seconds(1));
  count = count_restarts({&a, &b}, &before, kRule, kNow + Seconds(1));
  EXPECT_EQ(count.recent, 0);
  // A hole is no container that runs.
  EXPECT_EQ(count_restarts({&a, nullptr}, &before, kRule, kNow + Seconds(900)).recent, 2);
}

TEST(Restarts, spend_a_group_when_they_are_more_than_the_most) {
  const PodView up = running(2, Seconds(1));
  EXPECT_FALSE(count_restarts({&up}, nullptr, kRule, kNow).spent);
  const PodView once_more = running(3, Seconds(1));
  EXPECT_TRUE(count_restarts({&once_more}, nullptr, kRule, kNow).spent);
  // One that waits to be restarted has ended for the third time.
  const PodView down = looping(2);
  EXPECT_TRUE(count_restarts({&down}, nullptr, kRule, kNow).spent);
  const PodView first = looping(0);
  EXPECT_FALSE(count_restarts({&first}, nullptr, kRule, kNow).spent);
  EXPECT_TRUE(count_restarts({&first}, nullptr, {.max_restarts = 0}, kNow).spent);
}

PodView ended_for(const char* reason) {
  PodView pod;
  pod.phase = "Failed";
  pod.status_reason = reason;
  return pod;
}

TEST(Failed, is_what_ended_without_being_asked_to) {
  for (const char* reason : {"UnexpectedAdmissionError", "OutOfcpu", "OutOfnvidia.com/gpu",
                             "NodeAffinity", "Evicted", "DeadlineExceeded", ""}) {
    EXPECT_TRUE(failed(ended_for(reason))) << reason;
  }
  // An orderly shutdown of the node, and what was deleted (also by an eviction).
  EXPECT_FALSE(failed(ended_for("Terminated")));
  PodView deleted = ended_for("");
  deleted.deletion = kNow;
  EXPECT_FALSE(failed(deleted));
  deleted.status_reason = "UnexpectedAdmissionError";  // before we deleted it
  EXPECT_TRUE(failed(deleted));
  EXPECT_FALSE(failed(running(3, Seconds(1))));
}

TEST(Failed, is_the_nodes_doing_when_its_kubelet_did_not_take_the_pod) {
  for (const char* reason : {"UnexpectedAdmissionError", "OutOfpods", "OutOfnvidia.com/gpu",
                             "NodeAffinity", "TopologyAffinityError", "NodeShutdown"}) {
    EXPECT_TRUE(refused_by_node(ended_for(reason))) << reason;
  }
  for (const char* reason : {"Evicted", "Terminated", ""}) {
    EXPECT_FALSE(refused_by_node(ended_for(reason))) << reason;
  }
}

TEST(LostGpu, counts_as_one_restart_whether_or_not_its_container_has_started_again) {
  PodView pod = looping(0);
  pod.exit_why = api::kDeviceLost;
  ASSERT_TRUE(lost_gpu(pod, nullptr));
  EXPECT_EQ(count_restarts({&pod}, nullptr, kRule, kNow).all, 1);
  pod.restarts = 1;
  EXPECT_EQ(count_restarts({&pod}, nullptr, kRule, kNow).all, 1);
  pod.ready = true;  // it was mended meanwhile
  EXPECT_FALSE(lost_gpu(pod, nullptr));
  pod.ready = false;
  pod.deletion = kNow;
  EXPECT_FALSE(lost_gpu(pod, nullptr)) << "it goes already";
  PodView other = looping(1);
  other.exit_why = api::kDeviceError;
  EXPECT_FALSE(lost_gpu(other, nullptr));
}

TEST(LostGpu, is_remembered_until_its_pod_goes_whatever_the_container_says_next) {
  PodView pod = looping(0);
  pod.name = "m-1-0";
  pod.node = "n";
  pod.exit_why = api::kDeviceLost;
  pod.exit_message = "Xid 79";
  api::GroupStatus before = said(1, 1);
  before.reason = api::kDeviceLost;
  // Where its restarts are spent, other words stand before these.
  before.message = "it is replaced whole; " + lost_gpu_words(pod, nullptr);
  EXPECT_EQ(lost_gpu_words(pod, &before),
            "pod m-1-0 on node n is made again, to have another GPU: Xid 79");
  PodView again = looping(3);
  again.name = pod.name;
  again.node = pod.node;
  again.exit_why = api::kDeviceError;
  again.exit_message = "no GPU";
  ASSERT_TRUE(lost_gpu(again, &before));
  EXPECT_EQ(lost_gpu_words(again, &before), lost_gpu_words(pod, nullptr));
  EXPECT_EQ(count_restarts({&again}, &before, kRule, kNow).recent, 1) << "its tries do not count";
  EXPECT_FALSE(lost_gpu(again, nullptr)) << "nothing is known";
  again.restarts = 0;
  EXPECT_FALSE(lost_gpu(again, &before)) << "it is another pod of this name";
  again.restarts = 3;
  again.name = "m-1-1";
  EXPECT_FALSE(lost_gpu(again, &before)) << "another one of its group is";
  before.reason = api::kPodLost;
  again.name = pod.name;
  EXPECT_FALSE(lost_gpu(again, &before));
}

TEST(Failed, pods_count_as_restarts_each_once) {
  const PodView up = running(1, Seconds(700));
  const PodView down = ended_for("OutOfcpu");
  auto count = count_restarts({&up, &down}, nullptr, kRule, kNow);
  EXPECT_EQ(count.all, 2);
  EXPECT_EQ(count.recent, 2);
  EXPECT_FALSE(count.stable_at);
  auto before = said(2, 2);
  EXPECT_EQ(count_restarts({&up, &down}, &before, kRule, kNow).recent, 2) << "seen again";
  const PodView anew = running(0, Seconds(1));
  count = count_restarts({&up, &anew}, &before, kRule, kNow);
  EXPECT_EQ(count.recent, 2);
  before = said(count.all, count.recent);
  count = count_restarts({&up, &down}, &before, kRule, kNow);
  EXPECT_EQ(count.recent, 3) << "failed again";
  EXPECT_TRUE(count.spent);
}

TEST(MendWait, is_none_at_first_and_then_doubles_up_to_five_minutes) {
  const int seconds[] = {0, 0, 10, 20, 40, 80, 160, 300, 300};
  for (int restarts = 0; restarts < 9; ++restarts) {
    EXPECT_EQ(mend_wait(restarts), Seconds(seconds[restarts])) << restarts;
  }
  EXPECT_EQ(mend_wait(1000000), Seconds(300));
}

TEST(Rule, is_that_of_the_spec) {
  EXPECT_EQ(recovery_rule({.max_restarts = 3, .window = "2m"}).window, Seconds(120));
  EXPECT_EQ(recovery_rule({.max_restarts = 3, .window = ""}).window, Seconds(600));
}

std::vector<Group> failed_on(std::vector<std::string> nodes) {
  std::vector<Group> groups(1);
  groups[0].failed_nodes = std::move(nodes);
  return groups;
}

TEST(AvoidedNodes, are_remembered_for_an_hour_and_not_longer_for_being_seen_again) {
  auto avoided = avoided_nodes({}, failed_on({"a"}), kNow);
  ASSERT_EQ(avoided.size(), 1U);
  EXPECT_EQ(avoided[0].name, "a");
  EXPECT_EQ(avoided[0].until, "2026-01-01T01:00:00Z");
  avoided = avoided_nodes(avoided, failed_on({"a", "b"}), kNow + Seconds(60));
  ASSERT_EQ(avoided.size(), 2U);
  EXPECT_EQ(avoided[0].until, "2026-01-01T01:00:00Z");
  EXPECT_EQ(avoided[1].name, "b");
  avoided = avoided_nodes(avoided, {}, kNow + Seconds(3600));
  ASSERT_EQ(avoided.size(), 1U);
  EXPECT_EQ(avoided[0].name, "b");
}

TEST(AvoidedNodes, are_no_more_than_a_pod_can_carry) {
  std::vector<std::string> many;
  many.reserve(100);
  for (int i = 0; i < 100; ++i) many.push_back("n" + std::to_string(i));
  EXPECT_EQ(avoided_nodes({}, failed_on(many), kNow).size(), 32U);
}

}  // namespace
}  // namespace dsm::plan
