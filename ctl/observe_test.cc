// What `dsmctl plan` sees of the cluster beside the model: tenants, autoscalers, PodGroups, queues.
#include "ctl/observe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ctl/testing/fake_cluster.h"

namespace dsm::ctl {
namespace {

using kube::testing::json_answer;
using kube::testing::status_answer;
using nlohmann::json;
using ::testing::AllOf;
using testing::FakeCluster;
using ::testing::HasSubstr;
using ::testing::Not;
using State = plan::MetricsApi::State;

constexpr const char* kTenants = "/apis/deepseek-operator.io/v1alpha1/deepseektenants";
constexpr const char* kExternal = "/apis/external.metrics.k8s.io/v1beta1";

class Plans : public ::testing::Test {
 protected:
  std::string plan(const json& patch, int code = kExitDone) {
    json manifest = fake.example.model;
    manifest.erase("status");
    manifest["spec"].merge_patch(patch);
    fake.in.clear();
    fake.in.str(manifest.dump());
    fake.out.str("");
    const auto done = run(PlanCommand{.file = "-"}, &fake.cluster, fake.io);
    EXPECT_TRUE(done) << done.error().message;
    EXPECT_EQ(done.value_or(-1), code);
    return fake.out.str();
  }
  void say_tenant(const json& spec) {
    const json tenant = {
        {"metadata", {{"name", "a"}, {"uid", "u"}, {"creationTimestamp", "2026-01-01T00:00:00Z"}}},
        {"spec", spec}};
    fake.more[kTenants] = list({tenant});
  }
  static kube::HttpResponse list(const std::vector<json>& items) {
    return json_answer(200, {{"kind", "List"},
                             {"apiVersion", "v1"},
                             {"metadata", {{"resourceVersion", "7"}}},
                             {"items", items}});
  }
  void serve(const char* path, const std::string& resource) {
    fake.more[path] = json_answer(200, {{"resources", {{{"name", resource}}}}});
  }

  FakeCluster fake;
};

TEST_F(Plans, without_a_tenant_nothing_is_in_the_way) {
  EXPECT_THAT(plan({{"replicas", 3}}), AllOf(HasSubstr("1 group made"), Not(HasSubstr("waits")),
                                             Not(HasSubstr("not known"))));
}

TEST_F(Plans, groups_beyond_the_tenants_budget_are_not_made) {
  say_tenant({{"namespaces", {"team-a"}}, {"budget", {{"resources", {{"cpu", "600m"}}}}}});
  // A pod without requests counts as 100m: three groups of two.
  EXPECT_THAT(plan({{"replicas", 5}}),
              AllOf(HasSubstr("1 group made, 0 removed, 2 kept"),
                    HasSubstr("waits: QuotaExceeded: "), HasSubstr("cpu")));
}

TEST_F(Plans, what_the_tenant_does_not_allow_is_wrong) {
  say_tenant({{"namespaces", {"team-a"}}, {"allowed", {{"models", {"pvc://weights/*"}}}}});
  EXPECT_THAT(plan({{"replicas", 5}}, kExitProblem),
              HasSubstr("wrong: spec.model.uri: image:///models/deepseek-tiny is not among"));
}

TEST_F(Plans, who_may_not_see_tenants_is_told_what_is_not_known) {
  fake.more[kTenants] = status_answer(403, "Forbidden", "no tenants for you");
  EXPECT_THAT(
      plan({{"replicas", 3}}),
      AllOf(HasSubstr("1 group made"),
            HasSubstr("not known: whether a tenant lets it run and has room (taken as so): "),
            HasSubstr("no tenants for you")));
}

TEST_F(Plans, an_autoscaler_is_made_where_its_metrics_are_served) {
  const json scaling = {{"scaling", {{"maxReplicas", 4}}}};
  EXPECT_THAT(plan(scaling), Not(HasSubstr("HorizontalPodAutoscaler"))) << "nobody serves them";
  serve(kExternal, "dsm_queue_depth");
  EXPECT_THAT(plan(scaling), HasSubstr("making HorizontalPodAutoscaler r1"));
  EXPECT_THAT(plan(json::object()), Not(HasSubstr("HorizontalPodAutoscaler")));
  fake.more[kExternal] = status_answer(503, "ServiceUnavailable", "no endpoints");
  EXPECT_THAT(plan(scaling), AllOf(Not(HasSubstr("making HorizontalPodAutoscaler")),
                                   HasSubstr("not known: who serves the metrics")));
}

TEST_F(Plans, an_autoscaler_that_is_not_wanted_any_more_goes) {
  json there = {{"apiVersion", "autoscaling/v2"},
                {"kind", "HorizontalPodAutoscaler"},
                {"metadata", plan::child_metadata(testing::kOwner, "r1")}};
  there["metadata"]["uid"] = "uid-hpa";
  fake.more["/apis/autoscaling/v2/namespaces/team-a/horizontalpodautoscalers/r1"] =
      json_answer(200, there);
  serve(kExternal, "dsm_queue_depth");
  EXPECT_THAT(plan({{"replicas", 2}}), HasSubstr("removing HorizontalPodAutoscaler r1"));
}

TEST_F(Plans, groups_of_a_named_scheduler_have_pod_groups_where_the_kind_is_there) {
  const json named = {{"placement", {{"schedulerName", "gang"}}}};
  EXPECT_THAT(plan(named), Not(HasSubstr("PodGroup")));
  serve("/apis/scheduling.x-k8s.io/v1alpha1", "podgroups");
  fake.more["/apis/scheduling.x-k8s.io/v1alpha1/namespaces/team-a/podgroups"] = list({});
  EXPECT_THAT(plan(named), HasSubstr("making PodGroup r1-"));
}

TEST_F(Plans, a_queue_decides_for_itself) {
  const json queued = {{"placement", {{"queueName", "gpus"}}}};
  EXPECT_THAT(plan(queued), HasSubstr("not known: queue gpus: there is no Kueue"));
  serve("/apis/kueue.x-k8s.io/v1beta1", "workloads");
  EXPECT_THAT(plan(queued), HasSubstr("not known: when queue gpus of Kueue admits the groups"));
}

TEST(MetricsApiOf, is_told_by_what_is_listed) {
  const std::vector<std::string> ours = {"dsm_queue_depth"};
  const std::vector<std::string> of_models = {
      "deepseekmodels.deepseek-operator.io/dsm_queue_depth"};
  const std::vector<std::string> others = {"kafka_lag"};
  EXPECT_EQ(metrics_api_of(ours, std::nullopt).state, State::kOurs);
  EXPECT_EQ(metrics_api_of(others, of_models).state, State::kCustom);
  EXPECT_EQ(metrics_api_of(others, others).state, State::kForeign);
  EXPECT_EQ(metrics_api_of(others, std::nullopt).state, State::kOff);
  EXPECT_EQ(metrics_api_of(std::nullopt, std::nullopt).state, State::kOff);
}

}  // namespace
}  // namespace dsm::ctl
