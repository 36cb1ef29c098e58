// Scaling by load: the bounds, the autoscaler as a child, and what is said about it.
#include "operator/plan/autoscaler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "operator/plan/simulate.h"

namespace dsm::plan {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::IsEmpty;

json scaled() {
  return {{"model", {{"uri", "image:///models/deepseek-tiny"}}},
          {"replicas", 1},
          {"scaling", {{"minReplicas", 2}, {"maxReplicas", 4}, {"queueDepth", 3}}}};
}

class Scaling : public testing::Test {
 protected:
  const json* autoscaler() const {
    for (const json& child : sim.children()) {
      if (child["kind"] == "HorizontalPodAutoscaler") return &child;
    }
    return nullptr;
  }
  // What the autoscaler's own controller says of it.
  void autoscaler_says(const json& condition) {
    sim.drift("m", {{"status", {{"conditions", json::array({condition})}}}});
  }
  void TearDown() override { EXPECT_THAT(sim.breaches(), IsEmpty()); }

  Simulation sim{scaled()};
};

TEST(WantedReplicas, are_inside_the_bounds_when_there_are_any) {
  api::Spec spec;
  spec.replicas = 9;
  EXPECT_EQ(wanted_replicas(spec), 9);
  spec.scaling.min_replicas = 2;
  spec.scaling.max_replicas = 4;
  for (const auto& [replicas, wanted] :
       std::vector<std::pair<int, int>>{{0, 2}, {1, 2}, {2, 2}, {3, 3}, {4, 4}, {9, 4}}) {
    spec.replicas = replicas;
    EXPECT_EQ(wanted_replicas(spec), wanted);
  }
}

TEST(Autoscaler, asks_for_the_models_own_number_with_an_average_and_every_default_said) {
  api::Scaling scaling;
  scaling.max_replicas = 4;
  scaling.queue_depth = 3;
  scaling.scale_down_window_seconds = 20;
  const json made = autoscaler_json({"m", "ns", "u"}, scaling, MetricSource::kExternal, 0);
  EXPECT_EQ(made["spec"]["scaleTargetRef"], json({{"apiVersion", "deepseek-operator.io/v1alpha1"},
                                                  {"kind", "DeepSeekModel"},
                                                  {"name", "m"}}));
  ASSERT_EQ(made["spec"]["metrics"].size(), 1U);
  const json& external = made["spec"]["metrics"][0]["external"];
  EXPECT_EQ(external["metric"]["name"], "dsm_queue_depth");
  EXPECT_EQ(external["metric"]["selector"]["matchLabels"], json({{"model", "m"}}));
  EXPECT_EQ(external["target"], json({{"type", "AverageValue"}, {"averageValue", "3"}}));
  EXPECT_EQ(made["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"], 20);
  EXPECT_EQ(made["spec"]["behavior"]["scaleUp"]["policies"].size(), 2U);
  scaling.running = 8;
  EXPECT_EQ(
      autoscaler_json({"m", "ns", "u"}, scaling, MetricSource::kExternal, 0)["spec"]["metrics"]
          .size(),
      2U);
}

TEST(Autoscaler, asks_for_the_same_numbers_as_those_of_an_object) {
  api::Scaling scaling;
  scaling.max_replicas = 4;
  scaling.queue_depth = 3;
  scaling.running = 8;
  const json made = autoscaler_json({"m", "ns", "u"}, scaling, MetricSource::kObject, 0);
  const json& metrics = made["spec"]["metrics"];
  ASSERT_EQ(metrics.size(), 2U);
  EXPECT_EQ(metrics[0], json::parse(R"({"type": "Object", "object": {
      "describedObject": {"apiVersion": "deepseek-operator.io/v1alpha1", "kind": "DeepSeekModel",
                          "name": "m"},
      "metric": {"name": "dsm_queue_depth"},
      "target": {"type": "AverageValue", "averageValue": "3"}}})"));
  EXPECT_EQ(metrics[1]["object"]["metric"]["name"], "dsm_requests_running");
  EXPECT_EQ(metrics[1]["object"]["target"]["averageValue"], "8");
}

TEST(Autoscaler, adds_groups_once_in_the_time_that_new_ones_take_to_serve) {
  for (const auto& [cold_start_s, period_s] : std::vector<std::pair<int, int>>{
           {0, 15}, {3, 15}, {15, 15}, {16, 16}, {240, 240}, {1800, 1800}, {99'999, 1800}}) {
    EXPECT_EQ(scale_up_period(cold_start_s), period_s);
  }
  api::Scaling scaling;
  scaling.max_replicas = 4;
  const json made = autoscaler_json({"m", "ns", "u"}, scaling, MetricSource::kExternal, 240);
  const json& behavior = made["spec"]["behavior"];
  EXPECT_EQ(behavior["scaleUp"]["stabilizationWindowSeconds"], 0) << "the first ones at once";
  for (const json& policy : behavior["scaleUp"]["policies"]) {
    EXPECT_EQ(policy["periodSeconds"], 240);
  }
  EXPECT_EQ(behavior["scaleDown"]["policies"][0]["periodSeconds"], 15);
}

TEST_F(Scaling, makes_an_autoscaler_and_keeps_to_the_bounds) {
  EXPECT_TRUE(sim.settle());
  ASSERT_NE(autoscaler(), nullptr);
  EXPECT_EQ((*autoscaler())["spec"]["maxReplicas"], 4);
  EXPECT_EQ(sim.status()["ready"], "2/2");
  EXPECT_EQ(sim.condition("ScalingActive"), "True/AsWanted");
  sim.scale(9);
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(sim.status()["ready"], "4/4");
  const int writes = sim.writes();
  sim.run(900);
  EXPECT_EQ(sim.writes(), writes);
}

TEST_F(Scaling, a_change_of_the_bounds_is_applied_and_a_drift_mended) {
  EXPECT_TRUE(sim.settle());
  const std::string revision = sim.status()["updatedRevision"];
  sim.edit({{"scaling", {{"maxReplicas", 7}}}});
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ((*autoscaler())["spec"]["maxReplicas"], 7);
  EXPECT_EQ(sim.status()["updatedRevision"], revision) << "scaling shapes no pod";
  sim.drift("m", {{"spec", {{"minReplicas", 1}}}});
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ((*autoscaler())["spec"]["minReplicas"], 2);
}

// The simulation begins at midnight, UTC.
TEST_F(Scaling, a_schedule_sets_the_bounds_while_it_holds) {
  sim.edit({{"scaling",
             {{"schedules",
               {{{"name", "early"}, {"from", "00:30"}, {"to", "01:00"}, {"minReplicas", 3}}}}}}});
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(sim.status()["ready"], "2/2");
  sim.run(1800);
  EXPECT_EQ(sim.status()["ready"], "3/3");
  EXPECT_EQ((*autoscaler())["spec"]["minReplicas"], 3);
  EXPECT_THAT(sim.message("ScalingActive"), HasSubstr("(schedule early)"));
  sim.run(1800);
  EXPECT_EQ(sim.status()["ready"], "2/2");
  EXPECT_EQ((*autoscaler())["spec"]["minReplicas"], 2);
}

TEST_F(Scaling, a_time_zone_that_does_not_exist_is_a_mistake_in_the_spec) {
  sim.edit({{"scaling",
             {{"schedules",
               {{{"name", "early"}, {"timeZone", "Mars"}, {"from", "00:30"}, {"to", "01:00"}}}}}}});
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(sim.condition("Ready"), "False/InvalidSpec");
  EXPECT_THAT(sim.message("Ready"), HasSubstr("spec.scaling.schedules[0].timeZone: is \"Mars\""));
}

TEST_F(Scaling, without_scaling_the_autoscaler_goes_and_nothing_is_said) {
  EXPECT_TRUE(sim.settle());
  sim.edit({{"scaling", nullptr}});
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(autoscaler(), nullptr);
  EXPECT_EQ(sim.condition("ScalingActive"), "none");
  EXPECT_EQ(sim.status()["ready"], "1/1");
}

TEST_F(Scaling, foreign_servers_of_both_apis_mean_no_autoscaler_and_a_condition_that_names_them) {
  EXPECT_TRUE(sim.settle());
  sim.metrics_api = {MetricsApi::State::kForeign, "Service keda/keda-metrics",
                     "Service monitoring/adapter"};
  sim.edit({{"replicas", 2}});
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(autoscaler(), nullptr);
  EXPECT_EQ(sim.condition("ScalingActive"), "False/ForeignMetricsServer");
  EXPECT_THAT(sim.message("ScalingActive"), HasSubstr("Service keda/keda-metrics"));
  EXPECT_THAT(sim.message("ScalingActive"), HasSubstr("Service monitoring/adapter"));
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
}

TEST_F(Scaling, beside_a_foreign_server_of_external_metrics_the_model_itself_has_them) {
  EXPECT_TRUE(sim.settle());
  const std::string uid = (*autoscaler())["metadata"]["uid"];
  sim.metrics_api = {MetricsApi::State::kCustom, "Service keda/keda-metrics"};
  sim.edit({{"replicas", 3}});
  EXPECT_TRUE(sim.settle());
  ASSERT_NE(autoscaler(), nullptr);
  EXPECT_EQ((*autoscaler())["metadata"]["uid"], uid) << "the same one, changed in place";
  EXPECT_EQ((*autoscaler())["spec"]["metrics"][0]["type"], "Object");
  EXPECT_EQ(sim.condition("ScalingActive"), "True/AsWanted");
  EXPECT_THAT(sim.message("ScalingActive"), HasSubstr("Service keda/keda-metrics"));
  sim.metrics_api = {MetricsApi::State::kOurs};
  sim.edit({{"replicas", 2}});
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ((*autoscaler())["spec"]["metrics"][0]["type"], "External");
  EXPECT_THAT(sim.message("ScalingActive"), testing::Not(HasSubstr("keda")));
}

TEST_F(Scaling, an_operator_without_the_metrics_says_what_to_switch_on) {
  sim.metrics_api.state = MetricsApi::State::kOff;
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(autoscaler(), nullptr);
  EXPECT_EQ(sim.condition("ScalingActive"), "False/MetricsApiOff");
}

TEST_F(Scaling, while_the_owner_is_not_known_an_autoscaler_is_neither_made_nor_removed) {
  sim.metrics_api.state = MetricsApi::State::kPending;
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(autoscaler(), nullptr);
  EXPECT_EQ(sim.condition("ScalingActive"), "Unknown/MetricsApiPending");
  sim.metrics_api.state = MetricsApi::State::kOurs;
  sim.edit({{"replicas", 2}});
  EXPECT_TRUE(sim.settle());
  ASSERT_NE(autoscaler(), nullptr);
  sim.metrics_api.state = MetricsApi::State::kPending;
  sim.edit({{"replicas", 3}});
  EXPECT_TRUE(sim.settle());
  EXPECT_NE(autoscaler(), nullptr);
}

TEST_F(Scaling, what_the_autoscaler_complains_of_is_passed_on) {
  EXPECT_TRUE(sim.settle());
  autoscaler_says({{"type", "ScalingActive"},
                   {"status", "False"},
                   {"reason", "FailedGetExternalMetric"},
                   {"message", "unable to get external metric"}});
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(sim.condition("ScalingActive"), "False/AutoscalerInactive");
  EXPECT_THAT(sim.message("ScalingActive"), HasSubstr("FailedGetExternalMetric"));
  autoscaler_says({{"type", "ScalingActive"}, {"status", "True"}, {"reason", "ValidMetricFound"}});
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(sim.condition("ScalingActive"), "True/AsWanted");
}

TEST_F(Scaling, a_wrong_spec_leaves_the_autoscaler_alone) {
  EXPECT_TRUE(sim.settle());
  sim.edit({{"scaling", {{"minReplicas", 8}}}});
  EXPECT_TRUE(sim.settle());
  EXPECT_NE(autoscaler(), nullptr);
  EXPECT_EQ(sim.condition("ScalingActive"), "Unknown/InvalidSpec");
  EXPECT_THAT(sim.message("Ready"), HasSubstr("spec.scaling.minReplicas: is 8"));
}

TEST_F(Scaling, surge_groups_do_not_count_as_replicas) {
  EXPECT_TRUE(sim.settle());
  sim.edit({{"image", "worker:2"}});
  bool surged = false;
  for (int i = 0; i < 60; ++i) {
    sim.run(1);
    surged = surged || sim.pods().size() > 2;
    EXPECT_LE(sim.status()["replicas"].get<int>(), 2);
  }
  EXPECT_TRUE(surged);
  EXPECT_EQ(sim.status()["selector"],
            "deepseek-operator.io/model=m,deepseek-operator.io/role=leader");
}

}  // namespace
}  // namespace dsm::plan
