// Single looks that a history does not reach.
#include "operator/plan/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "operator/api/reasons.h"
#include "operator/api/status.h"
#include "operator/plan/children.h"
#include "operator/plan/pod.h"

namespace dsm::plan {
namespace {

using nlohmann::json;
using testing::IsEmpty;

const Owner kOwner{"m", "ns", "uid-new"};

// A model with one group of one pod that serves, as the operator has left it.
class Look1 : public testing::Test {
 protected:
  Look1() {
    const json spec = {{"model", {{"uri", "image:///models/deepseek-tiny"}}}};
    const auto parsed = api::parse_spec(spec);
    const Revision revision{api::revision_of(*parsed), *parsed, "worker:1", 1};
    seen.model = {
        {"metadata", {{"name", "m"}, {"namespace", "ns"}, {"uid", kOwner.uid}, {"generation", 1}}},
        {"spec", spec}};
    seen.now = from_rfc3339("2026-01-01T00:00:00Z");
    seen.fresh_token = "t";
    seen.config.worker_image = "worker:1";
    seen.children = {serving_service_json(kOwner, false), ranks_service_json(kOwner),
                     token_secret_json(kOwner, "t"), revision_json(kOwner, revision)};
    json pod = pod_json(kOwner, revision, {0, 0, {}}, {});
    pod["metadata"]["uid"] = "pod-uid";
    pod["status"] = {{"phase", "Running"},
                     {"conditions", {{{"type", "Ready"}, {"status", "True"}}}},
                     {"containerStatuses", {{{"state", {{"running", json::object()}}}}}}};
    seen.pods = {pod_view(pod)};
    LeaderStatus leader;
    leader.phase = "Ready";
    leader.received = seen.now;
    seen.leaders["pod-uid"] = leader;
    for (int i = 0; i < 2; ++i) {  // first visit, then Ready
      seen.model["status"] = plan(seen).status.value_or(seen.model.value("status", json()));
    }
    seen.status_written = seen.now;
  }

  Observed seen;
};

TEST_F(Look1, finds_nothing_to_do) {
  const Plan next = plan(seen);
  EXPECT_TRUE(next.quiet()) << next.status.value_or(json()).dump(1);
  EXPECT_EQ(next.requeue_after, Millis(0));
}

TEST_F(Look1, a_change_of_numbers_alone_is_written_at_most_every_five_seconds) {
  seen.now += Seconds(1);
  seen.leaders["pod-uid"].queue_depth = 7;
  seen.leaders["pod-uid"].received = seen.now;
  Plan next = plan(seen);
  EXPECT_FALSE(next.status);
  EXPECT_EQ(next.requeue_after, Millis(4000));
  seen.now += Seconds(4);
  next = plan(seen);
  ASSERT_TRUE(next.status);
  EXPECT_EQ((*next.status)["queueDepth"], 7);
}

TEST_F(Look1, news_is_written_at_once) {
  seen.now += Seconds(1);
  seen.pods[0].ready = false;
  EXPECT_TRUE(plan(seen).status);
}

TEST_F(Look1, how_far_a_group_is_is_written_at_most_every_second) {
  seen.pods[0].ready = false;
  seen.leaders["pod-uid"].phase = "Rendezvous";
  seen.model["status"] = *plan(seen).status;  // not Ready any more: at once
  seen.leaders["pod-uid"].phase = "Loading";
  Plan next = plan(seen);
  EXPECT_FALSE(next.status);
  EXPECT_EQ(next.requeue_after, Millis(1000));
  seen.now += Seconds(1);
  EXPECT_TRUE(plan(seen).status);
}

TEST_F(Look1, a_gpu_that_a_person_should_look_at_is_told_while_the_group_serves) {
  LeaderStatus& leader = seen.leaders["pod-uid"];
  leader.reason = api::kDeviceDegraded;
  leader.message = "rank 0: GPU 3: a memory row waits to be remapped";
  Plan next = plan(seen);
  ASSERT_TRUE(next.status);
  const json group = (*next.status)["groups"][0];
  EXPECT_EQ(group["phase"], "Ready");
  EXPECT_EQ(group["reason"], "DeviceDegraded");
  EXPECT_EQ(group["message"], leader.message);
  for (const auto& condition : (*next.status)["conditions"]) {
    if (condition["type"] == "Ready") {
      EXPECT_EQ(condition["status"], "True");
    }
    if (condition["type"] == "Degraded") {
      EXPECT_EQ(condition["status"], "True");
      EXPECT_EQ(condition["reason"], "DeviceDegraded");
      EXPECT_NE(condition["message"].get<std::string>().find(leader.message), std::string::npos);
    }
  }
  seen.model["status"] = *next.status;
  leader.reason = "Formed";
  next = plan(seen);
  ASSERT_TRUE(next.status) << "it is over at once";
  EXPECT_FALSE((*next.status)["groups"][0].contains("reason"));
}

TEST_F(Look1, a_silent_leader_leaves_the_last_numbers_standing) {
  seen.leaders["pod-uid"].kv_total = 640;
  seen.model["status"] = *plan([&] {
                            Observed later = seen;
                            later.now += Seconds(6);
                            later.leaders["pod-uid"].received = later.now;
                            return later;
                          }())
                              .status;
  seen.leaders.clear();
  seen.now += Seconds(60);
  const Plan next = plan(seen);
  EXPECT_FALSE(next.status) << next.status->dump(1);
}

TEST_F(Look1, children_of_an_earlier_model_of_the_name_are_waited_for_and_are_no_conflict) {
  seen.pods.clear();
  for (json& child : seen.children) child["metadata"]["ownerReferences"][0]["uid"] = "uid-old";
  const Plan next = plan(seen);
  EXPECT_THAT(next.create_pods, IsEmpty());
  EXPECT_EQ(next.requeue_after, Millis(2000));
  ASSERT_TRUE(next.status);
  const auto status = api::parse_status(*next.status);
  EXPECT_EQ(api::find_condition(status, api::kStalled)->status, api::Truth::kFalse);
}

TEST_F(Look1, pods_of_an_earlier_model_only_take_their_names) {
  seen.pods[0].owner_uid = "uid-old";
  const Plan next = plan(seen);
  EXPECT_THAT(next.remove, IsEmpty());
  ASSERT_EQ(next.create_pods.size(), 1U);
  EXPECT_EQ(next.create_pods[0]["metadata"]["labels"]["deepseek-operator.io/group"], "1");
}

TEST_F(Look1, a_write_that_failed_in_passing_is_tried_again_at_once) {
  seen.pods.clear();
  const std::string name = plan(seen).create_pods.at(0)["metadata"]["name"];
  seen.failures = {{"Pod", name, ErrorKind::kTransient, "connection lost", seen.now}};
  EXPECT_EQ(plan(seen).create_pods.size(), 1U);
  seen.failures[0].error = ErrorKind::kDenied;
  const Plan next = plan(seen);
  EXPECT_THAT(next.create_pods, IsEmpty());
  EXPECT_EQ(next.requeue_after, Millis(15000));
}

TEST_F(Look1, no_pods_are_made_without_what_they_need) {
  seen.pods.clear();
  const auto refused = [&](const char* kind, const std::string& name) {
    Observed without = seen;
    std::erase_if(without.children, [&](const json& child) {
      return child["kind"] == kind && child["metadata"]["name"] == name;
    });
    EXPECT_LT(without.children.size(), seen.children.size()) << kind;
    without.failures = {
        {kind, name, ErrorKind::kDenied, "exceeded quota: count/secrets", without.now}};
    return without;
  };
  const std::string revision = seen.model["status"]["updatedRevision"];
  const std::pair<const char*, std::string> needed[] = {{"Secret", "m-internal"},
                                                        {"ControllerRevision", "m-" + revision}};
  for (const auto& [kind, name] : needed) {
    Observed without = refused(kind, name);
    Plan next = plan(without);
    EXPECT_THAT(next.create_pods, IsEmpty()) << kind;
    EXPECT_THAT(next.children, IsEmpty()) << kind;
    EXPECT_EQ(next.requeue_after, Millis(15000)) << kind;
    ASSERT_TRUE(next.status) << kind;
    const auto status = api::parse_status(*next.status);
    EXPECT_EQ(api::find_condition(status, api::kReady)->reason, "QuotaExceeded");
    EXPECT_THAT(api::find_condition(status, api::kReady)->message,
                testing::HasSubstr(std::string("refuses ") + kind + " " + name));
    // When it is tried again, pods wait until it is there.
    without.now += Seconds(15);
    next = plan(without);
    EXPECT_THAT(next.create_pods, IsEmpty()) << kind;
    EXPECT_EQ(next.children.size(), 1U) << kind;
  }
}

TEST_F(Look1, an_operator_without_a_default_image_says_what_to_set) {
  seen.config.worker_image.clear();
  seen.model["status"] = json();
  seen.children.clear();
  seen.pods.clear();
  const Plan next = plan(seen);
  ASSERT_TRUE(next.status);
  const auto status = api::parse_status(*next.status);
  EXPECT_EQ(api::find_condition(status, api::kReady)->reason, "InvalidSpec");
  EXPECT_THAT(api::find_condition(status, api::kReady)->message,
              testing::HasSubstr("--worker-image"));
}

TEST_F(Look1, an_adapter_that_is_called_as_the_model_is_a_mistake) {
  seen.model["spec"]["adapters"] = {{{"name", "m"}, {"uri", "image:///adapters/x"}}};
  seen.children.clear();
  seen.pods.clear();
  const Plan next = plan(seen);
  EXPECT_THAT(next.create_pods, IsEmpty());
  ASSERT_TRUE(next.status);
  const auto status = api::parse_status(*next.status);
  EXPECT_EQ(api::find_condition(status, api::kReady)->reason, "InvalidSpec");
  EXPECT_THAT(api::find_condition(status, api::kReady)->message,
              testing::StartsWith("spec.adapters[0].name: is \"m\", the name"));
}

TEST_F(Look1, a_name_that_children_cannot_grow_from_makes_nothing) {
  seen.model["metadata"]["name"] = "7b";
  seen.children.clear();
  seen.pods.clear();
  const Plan next = plan(seen);
  EXPECT_THAT(next.children, IsEmpty());
  EXPECT_THAT(next.create_pods, IsEmpty());
  ASSERT_TRUE(next.status);
}

TEST(Plan, survives_a_model_of_any_shape) {
  for (const char* text : {"null", "{}", "[]", R"({"metadata": {"name": "m"}})",
                           R"({"metadata": {"name": "m", "uid": "u"}, "spec": [], "status": 3})"}) {
    Observed seen;
    seen.model = json::parse(text);
    EXPECT_THAT(plan(seen).create_pods, IsEmpty()) << text;
  }
}

}  // namespace
}  // namespace dsm::plan
