// The numbers as custom.metrics.k8s.io has them: of one model, which is an object of the cluster.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "operator/metrics_api/view_fixture.h"

namespace dsm::metrics_api {
namespace {

using nlohmann::json;
using testing::HasSubstr;

constexpr const char* kRoot = "/apis/custom.metrics.k8s.io/v1beta2";

class Custom : public ViewFixture {
 protected:
  http::Response of(const std::string& model, const std::string& metric,
                    const std::string& query = "") {
    return get(std::string(kRoot) + "/namespaces/ns/deepseekmodels.deepseek-operator.io/" + model +
                   "/" + metric,
               query);
  }
};

// The shape that kubernetes/metrics defines, field by field.
TEST_F(Custom, the_value_of_a_model_is_a_list_of_exactly_one_that_names_the_object) {
  add("v3");
  add("r1").queue_depth = 12;
  const auto response = of("r1", "dsm_queue_depth");
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(json::parse(response.body), json::parse(R"({"kind": "MetricValueList",
                "apiVersion": "custom.metrics.k8s.io/v1beta2",
                "metadata": {},
                "items": [{"describedObject": {"apiVersion": "deepseek-operator.io/v1alpha1",
                                               "kind": "DeepSeekModel",
                                               "namespace": "ns",
                                               "name": "r1"},
                           "metric": {"name": "dsm_queue_depth", "selector": null},
                           "timestamp": "2026-01-01T00:00:07Z",
                           "value": "12"}]})"));
}

TEST_F(Custom, an_idle_model_is_zero_and_one_that_is_not_known_is_503) {
  add("r1");
  add("v3").unknown = "its leader v3-0-0 is silent";
  EXPECT_EQ(json::parse(of("r1", "dsm_queue_depth").body)["items"][0]["value"], "0");
  const auto response = of("v3", "dsm_queue_depth");
  EXPECT_EQ(response.status, 503);
  EXPECT_THAT(response.body, HasSubstr("ns/v3"));
  view.synced = false;
  EXPECT_EQ(of("r1", "dsm_queue_depth").status, 503);
}

TEST_F(Custom, what_is_not_there_is_404_with_what_there_is) {
  add("r1");
  EXPECT_THAT(of("none", "dsm_queue_depth").body, HasSubstr("there is no DeepSeekModel ns/none"));
  EXPECT_EQ(of("none", "dsm_queue_depth").status, 404);
  EXPECT_EQ(of("*", "dsm_queue_depth").status, 404);
  EXPECT_THAT(of("r1", "queue").body, HasSubstr("dsm_queue_depth, dsm_queue_age_seconds"));
  for (const char* tail :
       {"/namespaces/ns/pods/r1/dsm_queue_depth", "/namespaces/ns/metrics/dsm_queue_depth",
        "/namespaces/ns/deepseekmodels/r1/dsm_queue_depth", "/namespaces/ns/dsm_queue_depth",
        "/deepseekmodels.deepseek-operator.io/r1/dsm_queue_depth",
        "/namespaces/ns/deepseekmodels.deepseek-operator.io/r1",
        "/namespaces/ns/deepseekmodels.deepseek-operator.io/r1/dsm_queue_depth/x",
        "/namespaces/ns/deepseekmodels.deepseek-operator.io//dsm_queue_depth"}) {
    EXPECT_EQ(get(std::string(kRoot) + tail).status, 404) << tail;
  }
  EXPECT_EQ(get("/apis/custom.metrics.k8s.io/v1beta1").status, 404);
}

TEST_F(Custom, a_metric_selector_is_over_the_labels_of_the_metric) {
  add("r1");
  EXPECT_EQ(of("r1", "dsm_queue_depth", "metricLabelSelector=model%3Dr1").status, 200);
  EXPECT_EQ(of("r1", "dsm_queue_depth", "metricLabelSelector=model%3Dv3").status, 404);
  EXPECT_EQ(of("r1", "dsm_queue_depth", "metricLabelSelector=model%3E3").status, 400);
}

TEST_F(Custom, discovery_names_the_group_its_version_and_the_metrics_of_models) {
  const json list = json::parse(get(kRoot).body);
  EXPECT_EQ(list["groupVersion"], "custom.metrics.k8s.io/v1beta2");
  ASSERT_EQ(list["resources"].size(), 4U);
  EXPECT_EQ(list["resources"][0],
            json::parse(R"({"name": "deepseekmodels.deepseek-operator.io/dsm_queue_depth",
                            "singularName": "", "namespaced": true, "kind": "MetricValueList",
                            "verbs": ["get"]})"));
  const json group = json::parse(get("/apis/custom.metrics.k8s.io").body);
  EXPECT_EQ(group["name"], "custom.metrics.k8s.io");
  EXPECT_EQ(group["preferredVersion"]["version"], "v1beta2");
  EXPECT_EQ(json::parse(get("/apis").body)["groups"].size(), 2U);
}

}  // namespace
}  // namespace dsm::metrics_api
