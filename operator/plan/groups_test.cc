// What is said of a group, by the state of one of its pods or by its leader's line.
#include "operator/plan/groups.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "operator/api/reasons.h"

namespace dsm::plan {
namespace {

using testing::HasSubstr;

const WallTime kNow = from_rfc3339("2026-01-01T12:00:00Z");

class OneGroup : public testing::Test {
 protected:
  OneGroup() {
    const auto spec = api::parse_spec(
        {{"model", {{"uri", "image:///models/deepseek-tiny"}}}, {"parallelism", {{"tensor", 2}}}});
    revisions.emplace("abcd1234", Revision{"abcd1234", *spec, "worker:1", 1});
    seen.now = kNow;
    for (int i = 0; i < 2; ++i) {
      PodView pod;
      pod.name = "m-abcd1234-0-" + std::to_string(i);
      pod.uid = "u" + std::to_string(i);
      pod.owner_uid = "model-uid";
      pod.revision = "abcd1234";
      pod.group = 0;
      pod.index = i;
      pod.phase = "Running";
      pod.node = "n" + std::to_string(i);
      pod.running = true;
      pod.started = kNow - Seconds(10);
      seen.pods.push_back(pod);
    }
  }

  Group group() {
    auto groups = groups_of(seen, {"m", "model-uid", before, revisions, RecoveryRule{}});
    EXPECT_EQ(groups.size(), 1U);
    return groups.at(0);
  }
  PodView& rank() { return seen.pods[1]; }

  Observed seen;
  api::ModelStatus before;
  std::map<std::string, Revision> revisions;
};

struct Case {
  const char* phase;
  std::string_view reason;
  const char* words;  // of the message
  std::function<void(PodView&)> state;
};

TEST_F(OneGroup, says_why_a_pod_keeps_it_from_being_ready) {
  const auto unschedulable = [](const char* words) {
    return [words](PodView& pod) {
      pod.node.clear();
      pod.running = false;
      pod.unschedulable_since = kNow - Seconds(5);
      pod.unschedulable_message = words;
    };
  };
  const auto waiting = [](const char* reason, const char* message) {
    return [reason, message](PodView& pod) {
      pod.running = false;
      pod.waiting_reason = reason;
      pod.waiting_message = message;
    };
  };
  const Case cases[] = {
      {"Pending", "WaitingForGPU", "2 Insufficient nvidia.com/gpu",
       unschedulable("0/2 nodes are available: 2 Insufficient nvidia.com/gpu.")},
      {"Pending", "WaitingForCPU", "1 Insufficient cpu",
       unschedulable("0/1 nodes are available: 1 Insufficient cpu.")},
      {"Pending", "WaitingForMemory", "Insufficient memory",
       unschedulable("0/1 nodes are available: 1 Insufficient memory.")},
      {"Pending", "WaitingForVolume", "not found",
       unschedulable("0/1 nodes are available: persistentvolumeclaim \"w\" not found.")},
      {"Pending", "Unschedulable", "untolerated taint",
       unschedulable("0/1 nodes are available: 1 node(s) had untolerated taint {a: b}.")},
      {"Pending", "WaitingForAdmission",
       "m-abcd1234-0-1 waits to be admitted by example.com/budget",
       [](PodView& pod) {
         pod.node.clear();
         pod.running = false;
         pod.gate = "example.com/budget";
       }},
      {"Starting", "WaitingForVolume", "kubectl describe pod m-abcd1234-0-1",
       [](PodView& pod) {
         pod.running = false;
         pod.sandboxed = false;
         pod.scheduled = kNow - Seconds(60);
       }},
      {"Starting", "Starting", "m-abcd1234-0-1",
       [](PodView& pod) {
         pod.running = false;
         pod.sandboxed = false;
         pod.scheduled = kNow - Seconds(59);
       }},
      {"Starting", "ImagePull", "no such image", waiting("ImagePullBackOff", "no such image")},
      {"Starting", "ContainerConfig", "no secret",
       waiting("CreateContainerConfigError", "no secret")},
      {"Starting", "CrashLoop", "exit code 1 (Error): bad weights",
       [](PodView& pod) {
         pod.running = false;
         pod.restarts = 1;
         pod.waiting_reason = "CrashLoopBackOff";
         pod.exit_code = 1;
         pod.exit_reason = "Error";
         pod.exit_message = "bad weights";
       }},
      {"Starting", "ProbeFailed", "exit code 1 (Error): token 1 of 8 is 7",
       [](PodView& pod) {
         pod.running = false;
         pod.restarts = 1;
         pod.exit_code = 1;
         pod.exit_reason = "Error";
         pod.exit_message = "token 1 of 8 is 7";
         pod.exit_why = api::kProbeFailed;
       }},
      {"Failed", "ProbeFailed", "so it is replaced whole",
       [](PodView& pod) {
         pod.restarts = 6;
         pod.exit_why = api::kProbeFailed;
       }},
      {"Starting", "DeviceError", "exit code 135 (Error): bus error",
       [](PodView& pod) {
         pod.running = false;
         pod.exit_code = 135;
         pod.exit_reason = "Error";
         pod.exit_message = "bus error";
         pod.exit_why = api::kDeviceError;
       }},
      {"Starting", "OOMKilled", "limits.memory",
       [](PodView& pod) {
         pod.restarts = 1;
         pod.exit_code = 137;
         pod.exit_reason = "OOMKilled";
       }},
      {"Failed", "OOMKilled", "spec.recovery.maxRestarts is 5",
       [](PodView& pod) {
         pod.restarts = 6;
         pod.exit_code = 137;
         pod.exit_reason = "OOMKilled";
       }},
      {"Failed", "CrashLoop", "so it is replaced whole", [](PodView& pod) { pod.restarts = 6; }},
      {"Pending", "PodLost", "being deleted",
       [](PodView& pod) { pod.deletion = kNow + Seconds(75); }},
      {"Pending", "PodLost", "Evicted: low on memory",
       [](PodView& pod) {
         pod.phase = "Failed";
         pod.status_reason = "Evicted";
         pod.status_message = "low on memory";
       }},
      {"Failed", "NodeLost", "node n1 does not answer",
       [](PodView& pod) { pod.deletion = kNow - Seconds(61); }},
  };
  const Observed fresh = seen;
  for (const Case& each : cases) {
    SCOPED_TRACE(std::string(each.phase) + "/" + std::string(each.reason));
    seen = fresh;
    each.state(rank());
    const Group found = group();
    ASSERT_TRUE(found.cause);
    EXPECT_EQ(found.cause->phase, each.phase);
    EXPECT_EQ(found.cause->reason, each.reason);
    EXPECT_THAT(found.cause->message, HasSubstr(each.words));
  }
}

TEST_F(OneGroup, says_what_its_leader_says) {
  const std::tuple<const char*, const char*, const char*> cases[] = {
      {"Loading", "Loading", "LoadingWeights"},
      {"Rendezvous", "Starting", "Rendezvous"},
      {"Draining", "Draining", "Draining"},
      {"Failed", "Failed", "WorkerFailed"}};
  for (const auto& [said, phase, reason] : cases) {
    seen.leaders["u0"].phase = said;
    seen.leaders["u0"].received = kNow;
    const Group found = group();
    ASSERT_TRUE(found.cause) << said;
    EXPECT_EQ(found.cause->phase, phase);
    EXPECT_EQ(found.cause->reason, reason);
  }
}

TEST_F(OneGroup, says_the_reason_that_its_leader_gives) {
  LeaderStatus& line = seen.leaders["u0"];
  line.received = kNow;
  line.phase = "Failed";
  line.reason = "ProbeFailed";
  line.message = "token 1 of 8 is 7";
  line.last_error = "pod 1 was lost";
  const Group found = group();
  ASSERT_TRUE(found.cause);
  EXPECT_EQ(found.cause->reason, api::kProbeFailed);
  EXPECT_EQ(found.cause->message, "the leader says: token 1 of 8 is 7");
  EXPECT_TRUE(found.cause->hard);
}

TEST_F(OneGroup, is_not_ready_while_its_leader_says_that_it_is_not) {
  for (PodView& pod : seen.pods) pod.ready = true;
  seen.leaders["u0"].received = kNow;
  for (const char* phase : {"Failed", "Rendezvous", "Loading", "Draining"}) {
    seen.leaders["u0"].phase = phase;
    EXPECT_FALSE(group().ready) << phase;
    EXPECT_TRUE(group().cause) << phase;
  }
  seen.leaders["u0"].phase = "Ready";
  EXPECT_TRUE(group().ready);
}

TEST_F(OneGroup, becomes_ready_by_its_leaders_word_and_stays_so_while_the_leader_is_not_heard) {
  for (PodView& pod : seen.pods) pod.ready = true;
  seen.pods[0].ready_at = kNow - Seconds(5);
  Group found = group();
  EXPECT_FALSE(found.ready);
  ASSERT_TRUE(found.cause);
  EXPECT_EQ(found.cause->reason, api::kLeaderSilent);
  EXPECT_FALSE(found.cause->hard);
  seen.pods[0].ready_at = kNow - kLeaderPatience;
  EXPECT_TRUE(group().cause->hard);
  // What was said long ago does not count.
  seen.leaders["u0"].phase = "Ready";
  seen.leaders["u0"].received = kNow - kStatusStale - Seconds(1);
  EXPECT_FALSE(group().ready);
  seen.leaders["u0"].received = kNow;
  EXPECT_TRUE(group().ready);

  api::GroupStatus& said = before.groups.emplace_back();
  said.name = "m-abcd1234-0";
  said.phase = "Ready";
  seen.leaders.clear();
  EXPECT_TRUE(group().ready);
  seen.leaders["u0"].received = kNow - kStatusStale - Seconds(1);
  seen.leaders["u0"].phase = "Failed";
  EXPECT_TRUE(group().ready);
}

TEST_F(OneGroup, has_served_once_it_was_ready) {
  EXPECT_FALSE(group().served);
  api::GroupStatus& said = before.groups.emplace_back();
  said.name = "m-abcd1234-0";
  said.served = true;
  EXPECT_TRUE(group().served);
  before.groups.clear();
  for (PodView& pod : seen.pods) pod.ready = true;
  seen.leaders["u0"].phase = "Ready";
  seen.leaders["u0"].received = kNow;
  EXPECT_TRUE(group().ready);
  EXPECT_TRUE(group().served);
}

TEST_F(OneGroup, leaves_when_one_of_its_nodes_is_emptied) {
  seen.nodes["n0"] = {"n0", /*ready=*/true, /*unschedulable=*/false, {}};
  seen.nodes["n1"] = {"n1", /*ready=*/true, /*unschedulable=*/true, {}};
  ASSERT_TRUE(group().leaving);
  EXPECT_EQ(group().leaving->node, "n1");
  // What is urgent comes first.
  seen.nodes["n0"].taints = {{"spot", "", "NoExecute"}};
  EXPECT_EQ(group().leaving->node, "n0");
  EXPECT_TRUE(group().leaving->urgent);
}

TEST_F(OneGroup, names_the_nodes_that_failed_it) {
  EXPECT_THAT(group().failed_nodes, testing::IsEmpty());
  rank().restarts = 7;
  EXPECT_THAT(group().failed_nodes, testing::ElementsAre("n1"));
  rank().restarts = 0;
  rank().deletion = kNow;
  seen.nodes["n1"] = {"n1", /*ready=*/false, /*unschedulable=*/false, {}};
  EXPECT_TRUE(group().stuck);
  EXPECT_THAT(group().failed_nodes, testing::ElementsAre("n1"));
}

}  // namespace
}  // namespace dsm::plan
