#include "operator/runtime/pod_record.h"

#include <gtest/gtest.h>

#include "operator/api/reasons.h"

namespace dsm::runtime {
namespace {

using plan::PodView;

WallTime second(int number) {
  return WallTime(Seconds(1'790'000'000 + number));
}

// Every field set, to another value each.
PodView full() {
  return {.name = "m-5f2c19aa-0-1",
          .uid = "5ec07143-a064-42ff-98fd-d64ee1bc2547",
          .owner_uid = "62039358-778b-4bd7-9293-5f84c7a32997",
          .revision = "5f2c19aa",
          .group = 999,
          .index = -1,
          .phase = "Running",
          .node = "node-1",
          .ip = "10.0.0.1",
          .created = second(1),
          .deletion = second(2),
          .ready = true,
          .ready_at = second(3),
          .running = true,
          .restarts = 4,
          .started = second(5),
          .scheduled = second(6),
          .sandboxed = false,
          .gate = "gate",
          .queued = true,
          .bound_together = true,
          .drain = true,
          .unschedulable_since = second(7),
          .unschedulable_message = std::string(127, 'a'),
          .waiting_reason = "CrashLoopBackOff",
          .waiting_message = std::string(128, 'b'),
          .exit_reason = "Error",
          .exit_code = -9,
          .exit_message = std::string(20'000, 'c'),
          .exit_why = api::kWorkerReasons[1],
          .status_reason = "Evicted",
          .status_message = std::string("zero\0inside", 11)};
}

TEST(PodRecord, HoldsEveryField) {
  EXPECT_EQ(pod_of_record(pod_record(full())), full());
  EXPECT_EQ(pod_of_record(pod_record(PodView{})), PodView{});
}

TEST(PodRecord, OfAPodThatServesIsSmall) {
  PodView pod = full();
  for (std::string* absent :
       {&pod.gate, &pod.unschedulable_message, &pod.waiting_reason, &pod.waiting_message,
        &pod.exit_reason, &pod.exit_message, &pod.status_reason, &pod.status_message}) {
    absent->clear();
  }
  pod.deletion.reset();
  pod.unschedulable_since.reset();
  EXPECT_LT(pod_record(pod).size(), 220u);
  EXPECT_LT(pod_record(pod).capacity(), 220u);
}

TEST(PodRecord, TellsPodsApart) {
  PodView other = full();
  other.exit_why = api::kWorkerReasons[0];
  EXPECT_NE(pod_record(other), pod_record(full()));
  other = full();
  other.ready_at.reset();
  EXPECT_NE(pod_record(other), pod_record(full()));
  EXPECT_EQ(pod_record(full()), pod_record(full()));
}

}  // namespace
}  // namespace dsm::runtime
