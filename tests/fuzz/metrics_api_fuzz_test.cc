// Requests to the metrics API that say anything at all get an answer in the shape of the API.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "operator/metrics_api/api.h"
#include "tests/fuzz/mutate.h"

namespace dsm::metrics_api {
namespace {

using fuzz::mutate;
using fuzz::Random;
using nlohmann::json;

TEST(MetricsApiFuzz, EveryRequestIsAnsweredWithAListOrAStatus) {
  static constexpr std::string_view kPaths[] = {
      "/apis/external.metrics.k8s.io/v1beta1/namespaces/ns/dsm_queue_depth",
      "/apis/external.metrics.k8s.io/v1beta1", "/apis/external.metrics.k8s.io", "/apis",
      "/apis/custom.metrics.k8s.io/v1beta2/namespaces/ns/deepseekmodels.deepseek-operator.io/r1/"
      "dsm_queue_depth"};
  static constexpr std::string_view kQueries[] = {
      "labelSelector=model%3Dr1", "labelSelector=model+in+%28a%2Cr1%29,%21team&limit=5",
      "limit=1&labelSelector=model!=x", "metricLabelSelector=model%3Dr1", ""};
  View view{.synced = true, .loads = {}};
  view.loads.emplace_back();
  view.loads.back().model = "r1";
  for (std::uint64_t seed = 1; seed <= 5000; ++seed) {
    Random random(seed);
    std::string path(random.pick(kPaths));
    std::string query(random.pick(kQueries));
    if (random.chance(30)) path = mutate(path, random);
    if (random.chance(70)) query = mutate(query, random);
    const auto call = call_of(path, query);
    if (!call) {
      EXPECT_EQ(call.error().kind, ErrorKind::kInvalid);
      continue;
    }
    if (call->kind == Call::Kind::kHealth) continue;
    const http::Response response = answer(*call, view);
    const json body = json::parse(response.body);
    EXPECT_EQ(body["kind"] == "Status", response.status != 200) << "seed " << seed;
    if (body["kind"] == "ExternalMetricValueList" || body["kind"] == "MetricValueList") {
      EXPECT_FALSE(body["items"].empty()) << "seed " << seed;
    }
  }
}

}  // namespace
}  // namespace dsm::metrics_api
