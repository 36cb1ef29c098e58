// The whole metrics API over TLS, asked as the API server's front proxy asks.
#include "operator/metrics_api/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>

#include "base/certificate.h"
#include "base/http/test_tls.h"
#include "kube/testing/scripted_transport.h"

namespace dsm::metrics_api {
namespace {

using http::TestTlsClient;
using kube::testing::json_answer;
using kube::testing::ScriptedTransport;
using testing::HasSubstr;

constexpr const char* kQueue =
    "/apis/external.metrics.k8s.io/v1beta1/namespaces/ns/dsm_queue_depth?labelSelector=model%3Dr1";
constexpr const char* kObject =
    "/apis/custom.metrics.k8s.io/v1beta2/namespaces/ns/deepseekmodels.deepseek-operator.io/r1/"
    "dsm_queue_depth";
constexpr const char* kJane = "X-Remote-User: jane\r\nX-Remote-Group: team\r\n";
const WallTime kFrom = SystemClock().wall_now() - std::chrono::hours(1);
const WallTime kUntil = kFrom + std::chrono::hours(24);

class MetricsServerTest : public testing::Test {
 protected:
  MetricsServerTest() {
    const KeyPair own =
        make_leaf(
            authority,
            {.common_name = "m.ns.svc", .dns_names = {"m.ns.svc"}, .from = kFrom, .until = kUntil})
            .value();
    EXPECT_TRUE(tls->use(own.certificate, own.key));
    trust = std::make_shared<ProxyTrust>(ProxyTrust{
        authority.certificate, {"proxy"}, {"X-Remote-User"}, {}, {"X-Remote-Group"}, {}});
    plan::ModelLoad load;
    load.model = "r1";
    load.queue_depth = 7;
    view = {true, {load}};
    EXPECT_TRUE(server.start());
  }
  ~MetricsServerTest() override { server.stop(); }

  KeyPair client(const std::string& name) const {
    return make_leaf(authority, {.common_name = name,
                                 .use = LeafRequest::Use::kClient,
                                 .from = kFrom,
                                 .until = kUntil})
        .value();
  }
  std::string get(const std::string& path, const std::string& headers,
                  const std::string& as = "proxy") {
    const KeyPair own = as.empty() ? KeyPair() : client(as);
    TestTlsClient caller(server.port(), authority.certificate, "m.ns.svc",
                         as.empty() ? nullptr : &own);
    EXPECT_TRUE(caller.connected());
    return caller.get(path, headers);
  }
  void the_api_server_allows(bool yes) {
    transport.next(json_answer(201, {{"status", {{"allowed", yes}}}}));
  }

  const KeyPair authority = make_authority("ours", kFrom, kUntil).value();
  SystemClock clock;
  ScriptedTransport transport;
  kube::Client kube{transport, clock, {}};
  Access access{kube};
  std::shared_ptr<http::Tls> tls = std::make_shared<http::Tls>();
  std::shared_ptr<const ProxyTrust> trust;
  std::atomic<bool> known = true;
  View view;
  std::mutex asked_mutex;
  std::string asked_of;  // the model of the last question; "": of any
  MetricsRegistry registry;
  MetricsServer server{{.host = "127.0.0.1", .threads = 1, .tls = tls},
                       access,
                       clock,
                       [this] { return known ? trust : nullptr; },
                       [this](const std::string& ns, const std::string& model) {
                         const std::lock_guard lock(asked_mutex);
                         asked_of = model;
                         return ns == "ns" ? view : View{true, {}};
                       },
                       registry,
                       Logger()};
};

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
