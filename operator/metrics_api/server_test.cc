// The metrics API over TLS, asked as the API server's front proxy asks.
#include "operator/metrics_api/server.h"

#include <gmock/gmock.h>

#include "operator/metrics_api/server_fixture.h"

namespace dsm::metrics_api {
namespace {

using testing::HasSubstr;

class MetricsServerTest : public ServerFixture {};

TEST_F(MetricsServerTest, AnswersWhomTheApiServerAllowsAndAsksOnce) {
  the_api_server_allows(true);
  const std::string answer = get(kQueue, kJane);
  EXPECT_THAT(answer, HasSubstr("HTTP/1.1 200"));
  EXPECT_THAT(answer, HasSubstr(R"("value":"7")"));
  EXPECT_THAT(get(kQueue, kJane), HasSubstr("HTTP/1.1 200"));
  {
    const std::lock_guard lock(asked_mutex);
    EXPECT_EQ(asked_of, "r1") << "the loads of all others need not be summed up";
  }
  ASSERT_EQ(transport.requests().size(), 1U);
  EXPECT_THAT(transport.requests()[0].body, HasSubstr(R"("user":"jane")"));
  EXPECT_THAT(metrics_text(registry),
              HasSubstr(R"(deepseek_operator_metrics_api_requests_total{code="200"} 2)"));
}

TEST_F(MetricsServerTest, RefusesWhomTheApiServerDoesNotAllow) {
  the_api_server_allows(false);
  const std::string answer = get(kQueue, kJane);
  EXPECT_THAT(answer, HasSubstr("HTTP/1.1 403"));
  EXPECT_THAT(answer, HasSubstr(R"("reason":"Forbidden")"));
}

TEST_F(MetricsServerTest, ANumberOfAModelIsAskedForAndAllowedAsThatOfTheModel) {
  the_api_server_allows(true);
  const std::string answer = get(kObject, kJane);
  EXPECT_THAT(answer, HasSubstr("HTTP/1.1 200"));
  EXPECT_THAT(answer, HasSubstr(R"("kind":"MetricValueList")"));
  EXPECT_THAT(answer, HasSubstr(R"("value":"7")"));
  EXPECT_THAT(transport.requests()[0].body, HasSubstr(R"("subresource":"dsm_queue_depth")"));
  the_api_server_allows(false);
  EXPECT_THAT(get(kObject, "X-Remote-User: joe\r\n"), HasSubstr("HTTP/1.1 403"));
  EXPECT_THAT(get(kObject, kJane, ""), HasSubstr("HTTP/1.1 401"));
}

TEST_F(MetricsServerTest, ListensToNobodyButTheFrontProxy) {
  EXPECT_THAT(get(kQueue, "X-Remote-User: root\r\nX-Remote-Group: system:masters\r\n", ""),
              HasSubstr("HTTP/1.1 401"));
  EXPECT_THAT(get(kQueue, "X-Remote-User: root\r\nX-Remote-Group: system:masters\r\n", "somebody"),
              HasSubstr("HTTP/1.1 401"));
  EXPECT_TRUE(transport.requests().empty());
}

TEST_F(MetricsServerTest, TheAggregatorsOwnCheckNeedsNoReview) {
  EXPECT_THAT(get("/apis/external.metrics.k8s.io/v1beta1",
                  "X-Remote-User: system:kube-aggregator\r\nX-Remote-Group: system:masters\r\n"),
              HasSubstr("dsm_queue_depth"));
  EXPECT_TRUE(transport.requests().empty());
}

TEST_F(MetricsServerTest, WhatIsNotKnownIs503) {
  transport.next(fail(ErrorKind::kTransient, "no answer in time"));
  EXPECT_THAT(get(kQueue, kJane), HasSubstr("HTTP/1.1 503"));
  known = false;
  EXPECT_THAT(get(kQueue, kJane), HasSubstr("HTTP/1.1 503"));
  EXPECT_THAT(get("/healthz", "", ""), HasSubstr("HTTP/1.1 200"));
}

}  // namespace
}  // namespace dsm::metrics_api
