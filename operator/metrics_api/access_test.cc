#include "operator/metrics_api/access.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kube/testing/scripted_transport.h"

namespace dsm::metrics_api {
namespace {

using kube::Json;
using kube::testing::json_answer;
using kube::testing::ScriptedTransport;
using kube::testing::status_answer;
using testing::HasSubstr;
using testing::StartsWith;

Call metric() {
  return *call_of("/apis/external.metrics.k8s.io/v1beta1/namespaces/ns/dsm_queue_depth", "");
}
Call object() {
  return *call_of(
      "/apis/custom.metrics.k8s.io/v1beta2/namespaces/ns/deepseekmodels.deepseek-operator.io/r1/"
      "dsm_queue_depth",
      "");
}
User user() {
  return {"jane", "42", {"team", "system:authenticated"}, {{"scopes", {"a"}}}};
}

class AccessTest : public testing::Test {
 protected:
  ScriptedTransport transport;
  ManualClock clock;
  kube::Client client{transport, clock, {}};
  Access access{client};
};

TEST(Review, asks_for_a_metric_as_a_resource_and_for_anything_else_as_a_path) {
  const Json review = review_of(user(), metric());
  EXPECT_EQ(review["apiVersion"], "authorization.k8s.io/v1");
  EXPECT_EQ(review["spec"],
            Json::parse(R"({"user": "jane", "uid": "42", "groups": ["team", "system:authenticated"],
                            "extra": {"scopes": ["a"]},
                            "resourceAttributes": {"verb": "list", "group": "external.metrics.k8s.io",
                              "version": "v1beta1", "resource": "dsm_queue_depth", "namespace": "ns"}})"));
  const Json path = review_of({"jane", "", {}, {}}, *call_of("/apis", ""));
  EXPECT_EQ(path["spec"]["nonResourceAttributes"], Json({{"verb", "get"}, {"path", "/apis"}}));
  EXPECT_FALSE(path["spec"].contains("uid"));
}

TEST(Review, asks_for_a_metric_of_a_model_as_a_subresource_of_it) {
  EXPECT_EQ(review_of({"jane", "", {}, {}}, object())["spec"]["resourceAttributes"],
            Json::parse(R"({"verb": "get", "group": "custom.metrics.k8s.io", "version": "v1beta2",
                            "resource": "deepseekmodels.deepseek-operator.io",
                            "subresource": "dsm_queue_depth", "name": "r1", "namespace": "ns"})"));
}

TEST_F(AccessTest, an_answer_is_kept_for_ten_seconds) {
  EXPECT_FALSE(access.known(user(), metric()));
  transport.next(json_answer(201, {{"status", {{"allowed", true}}}}));
  EXPECT_TRUE(access.ask(user(), metric())->allowed);
  EXPECT_THAT(transport.requests()[0].target,
              StartsWith("/apis/authorization.k8s.io/v1/subjectaccessreviews"));
  EXPECT_TRUE(access.known(user(), metric())->allowed);
  User other = user();
  other.groups.clear();
  EXPECT_FALSE(access.known(other, metric())) << "another user is another question";
  clock.advance(Kept<Verdict>::kFor);
  EXPECT_FALSE(access.known(user(), metric()));
}

TEST_F(AccessTest, a_refusal_names_who_and_what_and_is_kept_too) {
  transport.next(json_answer(201, {{"status", {{"allowed", false}, {"reason", "secret words"}}}}));
  const auto verdict = access.ask(user(), metric());
  ASSERT_TRUE(verdict);
  EXPECT_FALSE(verdict->allowed);
  EXPECT_THAT(verdict->why, HasSubstr("jane may not list dsm_queue_depth"));
  EXPECT_FALSE(access.known(user(), metric())->allowed);
  EXPECT_FALSE(access.known(user(), object())) << "of another group it is another question";
  transport.next(json_answer(201, {{"status", {{"allowed", false}}}}));
  EXPECT_THAT(access.ask(user(), object())->why,
              HasSubstr("jane may not get deepseekmodels.deepseek-operator.io/dsm_queue_depth of "
                        "custom.metrics.k8s.io in namespace ns"));
}

TEST_F(AccessTest, no_answer_is_no_verdict) {
  transport.next(status_answer(500, "InternalError"));
  EXPECT_FALSE(access.ask(user(), metric()));
  EXPECT_FALSE(access.known(user(), metric()));
}

TEST_F(AccessTest, masters_need_no_review) {
  EXPECT_TRUE(access.known({"root", "", {"system:masters"}, {}}, metric())->allowed);
  EXPECT_TRUE(transport.requests().empty());
}

}  // namespace
}  // namespace dsm::metrics_api
