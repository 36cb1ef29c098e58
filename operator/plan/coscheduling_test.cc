// When groups have PodGroups, what those say, and what is told of a group whose pods wait for each
// other. Whole histories are in simulate_coscheduling_test.cc.
#include "operator/plan/coscheduling.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "operator/api/names.h"
#include "operator/api/reasons.h"
#include "operator/api/status.h"
#include "operator/plan/children.h"
#include "operator/plan/new_child.h"
#include "operator/plan/plan.h"

namespace dsm::plan {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

const Owner kOwner{"m", "ns", "uid-m"};

// A model that names its scheduler, one group of two pods, in a cluster with PodGroups.
class Together : public testing::Test {
 protected:
  Together() {
    seen.now = from_rfc3339("2026-01-01T00:00:00Z");
    seen.config.worker_image = "worker:1";
    seen.pod_groups = true;
    asks_for({{"model", {{"uri", "image:///models/deepseek-tiny"}}},
              {"parallelism", {{"tensor", 2}}},
              {"placement", {{"schedulerName", "coscheduler"}}}});
  }
  // The model, looked at once, and the children that are there before pods are made.
  void asks_for(const json& spec) {
    seen.model = {
        {"metadata", {{"name", "m"}, {"namespace", "ns"}, {"uid", kOwner.uid}, {"generation", 1}}},
        {"spec", spec}};
    const auto parsed = api::parse_spec(spec);
    seen.children = {serving_service_json(kOwner, false), ranks_service_json(kOwner),
                     token_secret_json(kOwner, "t"),
                     revision_json(kOwner, {api::revision_of(*parsed), *parsed, "worker:1", 1})};
    seen.model["status"] = *plan(seen).status;
  }
  // What `plan` makes is there at the next look.
  void carry_out(const Plan& plan) {
    for (const ChildWrite& child : plan.children) {
      seen.children.push_back(child.object);
      seen.children.back()["metadata"]["uid"] = "u-" + child.name;
    }
    for (json pod : plan.create_pods) {
      pod["metadata"]["uid"] = "u-" + pod["metadata"]["name"].get<std::string>();
      pod["status"]["phase"] = "Pending";
      seen.pods.push_back(pod_view(pod));
    }
  }
  // Its PodGroup first, and then its pods.
  void make_group() {
    carry_out(plan(seen));
    carry_out(plan(seen));
  }
  void no_node_for(int index, const char* words) {
    seen.pods.at(static_cast<std::size_t>(index)).unschedulable_since = seen.now;
    seen.pods.at(static_cast<std::size_t>(index)).unschedulable_message = words;
  }
  static api::Condition ready(const Plan& plan) {
    const auto status = api::parse_status(plan.status.value_or(json()));
    const auto* condition = api::find_condition(status, api::kReady);
    return condition == nullptr ? api::Condition{} : *condition;
  }

  Observed seen;
};

TEST_F(Together, a_group_is_made_with_its_pod_group_and_stays_so) {
  const Plan first = plan(seen);
  ASSERT_THAT(first.children, SizeIs(1));
  const json& group = first.children[0].object;
  EXPECT_EQ(first.children[0].kind, "PodGroup");
  EXPECT_EQ(group["apiVersion"], "scheduling.x-k8s.io/v1alpha1");
  EXPECT_EQ(group["spec"], json::parse(R"({"minMember": 2, "scheduleTimeoutSeconds": 300})"));
  EXPECT_EQ(controller_uid(group), kOwner.uid);
  // Pods come when it is there: one without it would wait for a group that nobody makes.
  EXPECT_THAT(first.create_pods, IsEmpty());
  carry_out(first);
  const Plan made = plan(seen);
  EXPECT_THAT(made.children, IsEmpty());
  EXPECT_THAT(made.remove, IsEmpty());
  ASSERT_THAT(made.create_pods, SizeIs(2));
  for (const json& pod : made.create_pods) {
    EXPECT_EQ(pod["spec"]["schedulerName"], "coscheduler");
    EXPECT_EQ(pod["metadata"]["labels"]["scheduling.x-k8s.io/pod-group"],
              group["metadata"]["name"]);
    EXPECT_EQ(api::group_of_pod(pod["metadata"]["name"].get<std::string>()),
              group["metadata"]["name"]);
  }
  carry_out(made);
  const Plan next = plan(seen);
  EXPECT_THAT(next.children, IsEmpty());
  EXPECT_THAT(next.remove, IsEmpty());
}

TEST_F(Together, none_is_made_where_it_would_do_nothing) {
  struct Case {
    const char* why;
    json patch;  // of the spec
    bool pod_groups;
  };
  const Case cases[] = {
      {"the cluster has no such kind", json::object(), false},
      {"the scheduler is the cluster's default", {{"placement", nullptr}}, true},
      {"one pod is always alone", {{"parallelism", {{"ranksPerPod", 2}}}}, true},
  };
  const json spec = seen.model["spec"];
  for (const Case& each : cases) {
    json other = spec;
    other.merge_patch(each.patch);
    asks_for(other);
    seen.pod_groups = each.pod_groups;
    const Plan made = plan(seen);
    EXPECT_THAT(made.children, IsEmpty()) << each.why;
    ASSERT_FALSE(made.create_pods.empty()) << each.why;
    for (const json& pod : made.create_pods) {
      EXPECT_FALSE(pod["metadata"]["labels"].contains(kPodGroupLabel)) << each.why;
      EXPECT_EQ(pod["spec"].contains("schedulerName"), other.contains("placement")) << each.why;
    }
  }
}

TEST_F(Together, a_pod_group_that_was_changed_or_removed_is_mended) {
  make_group();
  seen.children.back()["spec"]["minMember"] = 1;
  Plan next = plan(seen);
  ASSERT_THAT(next.children, SizeIs(1));
  EXPECT_EQ(next.children[0].verb, ChildWrite::Verb::kApply);
  EXPECT_FALSE(makes(next.children[0]));
  EXPECT_EQ(next.children[0].object["spec"]["minMember"], 2);
  seen.children.pop_back();
  next = plan(seen);
  ASSERT_THAT(next.children, SizeIs(1));
  EXPECT_TRUE(makes(next.children[0]));
}

TEST_F(Together, a_pod_group_of_somebody_else_is_left_alone_and_said) {
  json theirs = plan(seen).children.at(0).object;
  theirs["metadata"]["ownerReferences"] = json::array();
  seen.children.push_back(theirs);
  const Plan next = plan(seen);
  EXPECT_THAT(next.create_pods, IsEmpty());
  EXPECT_THAT(next.remove, IsEmpty());
  // The name may have become free.
  ASSERT_THAT(next.children, SizeIs(1));
  EXPECT_TRUE(makes(next.children[0]));
  EXPECT_EQ(ready(next).reason, api::kNameConflict);
}

TEST_F(Together, the_pod_without_a_node_says_what_is_missing_not_the_one_that_waits_for_it) {
  make_group();
  no_node_for(0, "0/1 nodes are available: 1 optimistic rejection in PostFilter.");
  no_node_for(1,
              "0/2 nodes are available: 2 Insufficient nvidia.com/gpu. PodGroup ns/g gets "
              "rejected due to Pod p is unschedulable even after PostFilter.");
  const Plan waiting = plan(seen);
  EXPECT_EQ(ready(waiting).reason, api::kWaitingForGPU);
  EXPECT_THAT(ready(waiting).message,
              AllOf(HasSubstr(seen.pods[1].name), HasSubstr("2 Insufficient nvidia.com/gpu")));
  // The first one was looked at before the other one was made, and is not looked at again so soon.
  no_node_for(0, "0/2 nodes are available: pre-filter pod p cannot find enough sibling pods.");
  EXPECT_THAT(ready(plan(seen)).message, HasSubstr("2 Insufficient nvidia.com/gpu"));
  // Until the other one has been looked at, there is nothing better to say.
  seen.pods[1].unschedulable_since.reset();
  EXPECT_THAT(ready(plan(seen)).message, HasSubstr("enough sibling pods"));
}

}  // namespace
}  // namespace dsm::plan
