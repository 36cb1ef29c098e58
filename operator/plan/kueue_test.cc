// A model whose groups go through a queue of Kueue: what its pods carry, what is said while they
// wait, and how pods that have ended get free.
#include "operator/plan/kueue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "operator/api/names.h"
#include "operator/api/reasons.h"
#include "operator/api/status.h"
#include "operator/plan/children.h"
#include "operator/plan/pod.h"

namespace dsm::plan {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

const Owner kOwner{"m", "ns", "uid-m"};

// A model in a queue, one group of two pods, as it is after the pods were made: gated by Kueue.
class Queued : public testing::Test {
 protected:
  Queued() {
    const json spec = {{"model", {{"uri", "image:///models/deepseek-tiny"}}},
                       {"parallelism", {{"tensor", 2}}},
                       {"placement", {{"queueName", "gpus"}}}};
    seen.model = {
        {"metadata", {{"name", "m"}, {"namespace", "ns"}, {"uid", kOwner.uid}, {"generation", 1}}},
        {"spec", spec}};
    seen.now = from_rfc3339("2026-01-01T00:00:00Z");
    seen.config.worker_image = "worker:1";
    seen.children = {serving_service_json(kOwner, false), ranks_service_json(kOwner),
                     token_secret_json(kOwner, "t"), revision_of(spec)};
    seen.model["status"] = plan(seen).status.value_or(json());
    for (json& pod : plan(seen).create_pods) made.push_back(std::move(pod));
    for (json& pod : made) {
      pod["metadata"]["uid"] = "u-" + pod["metadata"]["name"].get<std::string>();
      pod["metadata"]["finalizers"] = json::array({kQueueFinalizer});
      pod["spec"]["schedulingGates"] = json::array({{{"name", kQueueGate}}});
      pod["status"] = {{"phase", "Pending"},
                       {"conditions",
                        {{{"type", "PodScheduled"},
                          {"status", "False"},
                          {"reason", "SchedulingGated"},
                          {"message", "Scheduling is blocked due to non-empty scheduling gates"},
                          {"lastTransitionTime", "2026-01-01T00:00:00Z"}}}}};
      seen.pods.push_back(pod_view(pod));
    }
  }
  static json revision_of(const json& spec) {
    const auto parsed = api::parse_spec(spec);
    return revision_json(kOwner, {api::revision_of(*parsed), *parsed, "worker:1", 1});
  }
  static api::Condition ready(const Plan& plan) {
    const auto status = api::parse_status(plan.status.value_or(json()));
    const auto* condition = api::find_condition(status, api::kReady);
    return condition == nullptr ? api::Condition{} : *condition;
  }

  Observed seen;
  std::vector<json> made;
};

TEST_F(Queued, pods_say_which_group_is_admitted_whole) {
  ASSERT_THAT(made, SizeIs(2));
  for (const json& pod : made) {
    const std::string name = pod["metadata"]["name"];
    const json& labels = pod["metadata"]["labels"];
    const json& notes = pod["metadata"]["annotations"];
    EXPECT_EQ(labels["kueue.x-k8s.io/queue-name"], "gpus");
    EXPECT_EQ(labels["kueue.x-k8s.io/pod-group-name"], api::group_of_pod(name));
    EXPECT_EQ(notes["kueue.x-k8s.io/pod-group-total-count"], "2");
    EXPECT_EQ(notes["kueue.x-k8s.io/pod-group-serving"], "true");
    EXPECT_EQ(notes["kueue.x-k8s.io/role-hash"], "main");
  }
}

TEST_F(Queued, a_label_of_the_object_names_the_queue_where_the_spec_does_not) {
  const std::string by_field = made[0]["metadata"]["labels"]["deepseek-operator.io/revision"];
  seen.model["spec"].erase("placement");
  seen.model["metadata"]["labels"] = {{"kueue.x-k8s.io/queue-name", "gpus"}};
  // The same revision: what shapes the pods is the same.
  EXPECT_THAT(plan(seen).children, IsEmpty());
  seen.pods.clear();
  const auto pods = plan(seen).create_pods;
  ASSERT_THAT(pods, SizeIs(2));
  EXPECT_EQ(pods[0]["metadata"]["labels"]["deepseek-operator.io/revision"], by_field);
  EXPECT_EQ(pods[0]["metadata"]["labels"]["kueue.x-k8s.io/queue-name"], "gpus");
}

TEST_F(Queued, without_the_rights_a_queue_is_a_mistake_and_a_label_is_nothing) {
  seen.config.kueue = false;
  const Plan refused = plan(seen);
  EXPECT_EQ(ready(refused).reason, api::kInvalidSpec);
  EXPECT_THAT(ready(refused).message, HasSubstr("spec.placement.queueName: "));
  seen.model["spec"].erase("placement");
  seen.model["metadata"]["labels"] = {{"kueue.x-k8s.io/queue-name", "gpus"}};
  seen.children.back() = revision_of(seen.model["spec"]);
  seen.pods.clear();
  const auto pods = plan(seen).create_pods;
  ASSERT_THAT(pods, SizeIs(2));
  EXPECT_FALSE(pods[0]["metadata"]["labels"].contains("kueue.x-k8s.io/queue-name"));
}

TEST_F(Queued, a_group_that_waits_says_so_in_the_words_of_kueue) {
  const std::string group = api::group_of_pod(seen.pods[0].name);
  EXPECT_THAT(groups_in_queue(seen.pods), ElementsAre(group));
  seen.queue_words[group] = "insufficient unused quota for cpu in flavor default, 1 more needed";
  const Plan waiting = plan(seen);
  EXPECT_EQ(ready(waiting).reason, api::kWaitingForAdmission);
  EXPECT_THAT(ready(waiting).message, HasSubstr("by kueue.x-k8s.io/admission: insufficient"));
  const auto status = api::parse_status(waiting.status.value_or(json()));
  ASSERT_THAT(status.groups, SizeIs(1));
  EXPECT_EQ(status.groups[0].phase, "Pending");
  EXPECT_EQ(status.groups[0].reason, api::kWaitingForAdmission);
  // It asks again for the words, and for nothing else.
  EXPECT_EQ(waiting.requeue_after, kQueueWordsEvery);
  EXPECT_THAT(waiting.create_pods, IsEmpty());
}

// No time-out of those that find no node counts, for a day.
TEST_F(Queued, a_group_waits_in_its_queue_for_as_long_as_it_takes) {
  seen.model["status"] = plan(seen).status.value_or(json());
  for (const int hours : {1, 24}) {
    seen.now = from_rfc3339("2026-01-01T00:00:00Z") + std::chrono::hours(hours);
    const Plan later = plan(seen);
    EXPECT_TRUE(later.quiet()) << later.status.value_or(json()).dump(1);
  }
}

TEST_F(Queued, a_group_that_is_admitted_waits_no_longer) {
  for (PodView& pod : seen.pods) pod.gate.clear();
  EXPECT_THAT(groups_in_queue(seen.pods), IsEmpty());
  EXPECT_NE(ready(plan(seen)).reason, api::kWaitingForAdmission);
}

// Kueue deletes the pods of a group that must make room; they end, and their finalizer holds them.
TEST_F(Queued, a_group_that_is_evicted_is_followed_by_one_that_waits) {
  for (PodView& pod : seen.pods) {
    pod.gate.clear();
    pod.node = "n1";
    pod.phase = "Running";
    pod.running = true;
    pod.deletion = seen.now + Seconds(75);
  }
  Plan next = plan(seen);
  EXPECT_THAT(next.release, IsEmpty()) << "they still run";
  ASSERT_THAT(next.create_pods, SizeIs(2));
  const std::string first = api::group_of_pod(seen.pods[0].name);
  EXPECT_NE(api::group_of_pod(next.create_pods[0]["metadata"]["name"].get<std::string>()), first);
  for (PodView& pod : seen.pods) {
    pod.running = false;
    pod.phase = "Succeeded";
  }
  next = plan(seen);
  EXPECT_THAT(next.release, SizeIs(2));
  EXPECT_EQ(next.release[0],
            (Release{seen.pods[0].name, seen.pods[0].uid, "kueue.x-k8s.io/managed"}));
  EXPECT_THAT(next.remove, IsEmpty());
}

TEST_F(Queued, pods_get_free_when_they_were_deleted_and_never_run_again) {
  struct Case {
    const char* why;
    bool free;
    std::function<void(PodView&)> state;
  };
  const auto deleted = [this](PodView& pod) { pod.deletion = seen.now; };
  const Case cases[] = {
      {"it waits in the queue", false, [](PodView&) {}},
      {"it is deleted and never had a node", true, deleted},
      {"its containers still run", false,
       [&](PodView& pod) {
         deleted(pod);
         pod.node = "n1";
         pod.phase = "Running";
       }},
      {"it has ended", true,
       [&](PodView& pod) {
         deleted(pod);
         pod.node = "n1";
         pod.phase = "Failed";
       }},
      {"it has ended and nobody has deleted it", false,
       [](PodView& pod) {
         pod.node = "n1";
         pod.phase = "Failed";
       }},
      {"nothing of Kueue's holds it", false,
       [&](PodView& pod) {
         deleted(pod);
         pod.queued = false;
       }},
      {"it is of a model that had this name before", true,
       [&](PodView& pod) {
         deleted(pod);
         pod.owner_uid = "uid-old";
       }},
      {"it is nobody's", false,
       [&](PodView& pod) {
         deleted(pod);
         pod.owner_uid.clear();
       }},
  };
  for (const Case& each : cases) {
    PodView pod = seen.pods[0];
    each.state(pod);
    EXPECT_EQ(releases({pod}).size(), each.free ? 1U : 0U) << each.why;
  }
}

TEST_F(Queued, pods_of_a_model_that_is_being_deleted_get_free) {
  seen.model["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z";
  for (PodView& pod : seen.pods) pod.deletion = seen.now;
  const Plan next = plan(seen);
  EXPECT_THAT(next.release, SizeIs(2));
  EXPECT_THAT(next.create_pods, IsEmpty());
  EXPECT_FALSE(next.status);
}

TEST(WaitingWords, are_those_of_the_first_condition_that_is_false) {
  const auto words = [](const json& conditions) {
    return waiting_words({{"status", {{"conditions", conditions}}}});
  };
  const auto condition = [](const char* type, const char* status, const char* message) {
    return json{{"type", type}, {"status", status}, {"message", message}};
  };
  EXPECT_EQ(words(json::array({condition("QuotaReserved", "False", "no quota")})), "no quota");
  EXPECT_EQ(words({condition("Admitted", "False", "a check is pending"),
                   condition("QuotaReserved", "False", "no quota")}),
            "no quota");
  EXPECT_EQ(words({condition("QuotaReserved", "True", "reserved"),
                   condition("Admitted", "False", "a check is pending")}),
            "a check is pending");
  EXPECT_EQ(words(json::array({condition("QuotaReserved", "True", "reserved")})), "");
  for (const char* strange : {"null", "{}", R"({"status": {"conditions": {}}})",
                              R"({"status": {"conditions": [1, {"type": 3}]}})"}) {
    EXPECT_EQ(waiting_words(json::parse(strange)), "") << strange;
  }
}

}  // namespace
}  // namespace dsm::plan
