#include "operator/metrics_api/api.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "operator/metrics_api/view_fixture.h"

namespace dsm::metrics_api {
namespace {

using nlohmann::json;
using testing::HasSubstr;

constexpr const char* kRoot = "/apis/external.metrics.k8s.io/v1beta1";

class Api : public ViewFixture {
 protected:
  http::Response metric(const std::string& name, const std::string& selector = "") {
    return get(std::string(kRoot) + "/namespaces/ns/" + name, selector);
  }
};

// The shape that kubernetes/metrics defines, field by field.
TEST_F(Api, the_value_of_a_model_is_a_list_of_one_with_the_time_of_the_number) {
  add("v3");
  add("r1").queue_depth = 12;
  const auto response = metric("dsm_queue_depth", "labelSelector=model%3Dr1");
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.content_type, "application/json");
  EXPECT_EQ(json::parse(response.body), json::parse(R"({"kind": "ExternalMetricValueList",
                            "apiVersion": "external.metrics.k8s.io/v1beta1",
                            "metadata": {},
                            "items": [{"metricName": "dsm_queue_depth",
                                       "metricLabels": {"model": "r1"},
                                       "timestamp": "2026-01-01T00:00:07Z",
                                       "value": "12"}]})"));
}

TEST_F(Api, one_number_is_known_or_says_why_not) {
  add("r1").queue_depth = 12;
  add("v3").unknown = "leader v3-0-0 is silent";
  EXPECT_EQ(number_of(view, "r1", "dsm_queue_depth").value_or(-1), 12);
  view.loads[0].kv_used = 1;
  view.loads[0].kv_total = 4;
  EXPECT_EQ(number_of(view, "r1", "dsm_kv_cache_usage_ratio").value_or(-1), 0.25);
  EXPECT_EQ(number_of(view, "r1", "cpu").error().kind, ErrorKind::kNotFound);
  EXPECT_EQ(number_of(view, "r2", "dsm_queue_depth").error().kind, ErrorKind::kNotFound);
  const auto silent = number_of(view, "v3", "dsm_queue_depth");
  EXPECT_EQ(silent.error().kind, ErrorKind::kTransient);
  EXPECT_THAT(silent.error().message, HasSubstr("leader v3-0-0 is silent"));
  view.synced = false;
  EXPECT_EQ(number_of(view, "r1", "dsm_queue_depth").error().kind, ErrorKind::kTransient);
}

TEST_F(Api, an_idle_model_is_zero_and_never_an_empty_list) {
  add("r1");
  for (const char* name : {"dsm_queue_depth", "dsm_queue_age_seconds", "dsm_requests_running",
                           "dsm_kv_cache_usage_ratio"}) {
    const json list = json::parse(metric(name, "labelSelector=model%3Dr1").body);
    ASSERT_EQ(list["items"].size(), 1U) << name;
    EXPECT_EQ(list["items"][0]["value"], "0");
  }
}

TEST_F(Api, each_metric_is_its_own_number) {
  plan::ModelLoad& load = add("r1");
  load.queue_age_s = 9;
  load.running = 4;
  load.kv_used = 123;
  load.kv_total = 1000;
  const auto value = [&](const char* name) {
    return json::parse(metric(name).body)["items"][0]["value"];
  };
  EXPECT_EQ(value("dsm_queue_age_seconds"), "9");
  EXPECT_EQ(value("dsm_requests_running"), "4");
  EXPECT_EQ(value("dsm_kv_cache_usage_ratio"), "123m");
}

TEST_F(Api, without_a_selector_there_is_an_item_for_each_model) {
  add("r1");
  add("v3");
  EXPECT_EQ(json::parse(metric("dsm_queue_depth").body)["items"].size(), 2U);
}

TEST_F(Api, what_is_not_known_is_503_and_says_why) {
  add("r1").unknown = "its leader r1-0-0 is silent";
  add("v3");
  const auto response = metric("dsm_queue_depth", "labelSelector=model%3Dr1");
  EXPECT_EQ(response.status, 503);
  const json status = json::parse(response.body);
  EXPECT_EQ(status["kind"], "Status");
  EXPECT_EQ(status["reason"], "ServiceUnavailable");
  EXPECT_THAT(status["message"].get<std::string>(), HasSubstr("ns/r1"));
  EXPECT_EQ(metric("dsm_queue_depth", "labelSelector=model%3Dv3").status, 200);
  view.synced = false;
  EXPECT_EQ(metric("dsm_queue_depth", "labelSelector=model%3Dv3").status, 503);
}

TEST_F(Api, what_is_not_there_is_404_with_what_there_is) {
  add("r1");
  EXPECT_EQ(metric("dsm_queue_depth", "labelSelector=model%3Dnone").status, 404);
  const auto unknown = metric("queue");
  EXPECT_EQ(unknown.status, 404);
  EXPECT_THAT(unknown.body, HasSubstr("dsm_queue_depth, dsm_queue_age_seconds"));
  for (const char* path : {"/", "", "x", "/openapi/v2", "/apis/apps/v1", "/apis//v1beta1",
                           "/apis/external.metrics.k8s.io/v1beta2"}) {
    EXPECT_EQ(get(path).status, 404) << path;
  }
  for (const char* tail : {"/namespaces", "/namespaces/ns", "/namespaces//x", "/namespaces/ns/a/b",
                           "/dsm_queue_depth"}) {
    EXPECT_EQ(get(std::string(kRoot) + tail).status, 404) << tail;
  }
}

TEST_F(Api, a_selector_that_cannot_be_read_is_400) {
  EXPECT_EQ(metric("dsm_queue_depth", "labelSelector=model%3E3").status, 400);
  EXPECT_EQ(metric("dsm_queue_depth", "labelSelector=%ZZ").status, 400);
  add("r1");
  EXPECT_EQ(metric("dsm_queue_depth", "limit=5&labelSelector=model+in+%28r1%29").status, 200);
}

TEST_F(Api, discovery_names_the_group_its_version_and_its_metrics) {
  const json list = json::parse(get(kRoot).body);
  EXPECT_EQ(list["kind"], "APIResourceList");
  EXPECT_EQ(list["groupVersion"], "external.metrics.k8s.io/v1beta1");
  ASSERT_EQ(list["resources"].size(), 4U);
  EXPECT_EQ(list["resources"][0],
            json::parse(R"({"name": "dsm_queue_depth", "singularName": "", "namespaced": true,
                            "kind": "ExternalMetricValueList", "verbs": ["get"]})"));
  const json group = json::parse(get("/apis/external.metrics.k8s.io").body);
  EXPECT_EQ(group["kind"], "APIGroup");
  EXPECT_EQ(group["preferredVersion"]["groupVersion"], "external.metrics.k8s.io/v1beta1");
  EXPECT_EQ(json::parse(get("/apis/").body)["groups"][0]["name"], "external.metrics.k8s.io");
  EXPECT_EQ(get("/readyz").status, 200);
}

TEST(Quantity, is_whole_where_it_can_be) {
  EXPECT_EQ(quantity(0), "0");
  EXPECT_EQ(quantity(2000), "2");
  EXPECT_EQ(quantity(1500), "1500m");
}

}  // namespace
}  // namespace dsm::metrics_api
