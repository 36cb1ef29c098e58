#include "kube/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "base/metrics.h"
#include "kube/metrics.h"
#include "kube/testing/scripted_transport.h"

namespace dsm::kube {
namespace {

using ::testing::HasSubstr;
using testing::json_answer;
using testing::ScriptedTransport;
using testing::status_answer;

class ClientTest : public ::testing::Test {
 protected:
  Client client(ClientOptions options = {}) {
    return Client(transport_, clock_, std::move(options), stop_.get_token());
  }
  HttpResponse busy(int retry_after_s) {
    HttpResponse answer = status_answer(429, "TooManyRequests");
    answer.headers["retry-after"] = std::to_string(retry_after_s);
    return answer;
  }

  ScriptedTransport transport_;
  ManualClock clock_;
  std::stop_source stop_;
};

struct Mapping {
  int code;
  const char* reason;
  ErrorKind kind;
};

TEST_F(ClientTest, StatusObjectsBecomeKinds) {
  for (const auto& [code, reason, kind] : {Mapping{404, "NotFound", ErrorKind::kNotFound},
                                           Mapping{409, "Conflict", ErrorKind::kConflict},
                                           Mapping{409, "AlreadyExists", ErrorKind::kConflict},
                                           Mapping{410, "Expired", ErrorKind::kTransient},
                                           Mapping{422, "Invalid", ErrorKind::kInvalid},
                                           Mapping{400, "BadRequest", ErrorKind::kInvalid},
                                           Mapping{403, "Forbidden", ErrorKind::kDenied},
                                           Mapping{500, "InternalError", ErrorKind::kTransient},
                                           Mapping{504, "Timeout", ErrorKind::kTransient}}) {
    transport_.next(status_answer(code, reason, "the words"));
    const auto result = client().get(kPods, "ns", "p");
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().kind, kind) << reason;
    EXPECT_EQ(result.error().code, code);
    EXPECT_EQ(result.error().reason, reason);
    EXPECT_EQ(result.error().message,
              "get pods ns/p: " + std::to_string(code) + " " + reason + ": the words");
    EXPECT_EQ(result.error().already_exists(), std::string(reason) == "AlreadyExists");
    EXPECT_EQ(result.error().expired(), code == 410);
  }
}

TEST_F(ClientTest, AResultConvertsToAPlainError) {
  transport_.next(status_answer(404, "NotFound"));
  const Result<Json> plain = client().get(kPods, "ns", "p");
  ASSERT_FALSE(plain);
  EXPECT_EQ(plain.error().kind, ErrorKind::kNotFound);
}

TEST_F(ClientTest, AnUnauthorizedRequestIsTriedOnceMoreWithAFreshToken) {
  transport_.next(status_answer(401, "Unauthorized"));
  transport_.next(json_answer(200, {{"kind", "Pod"}}));
  EXPECT_TRUE(client().get(kPods, "ns", "p"));
  EXPECT_EQ(transport_.refreshed(), 1);

  transport_.next(status_answer(401, "Unauthorized"));
  transport_.next(status_answer(401, "Unauthorized"));
  const auto refused = client().get(kPods, "ns", "p");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::kTransient);  // not a refusal of what was asked
  EXPECT_EQ(transport_.refreshed(), 2);
}

TEST_F(ClientTest, ABusyServerIsAskedAgainAfterTheTimeItSaid) {
  transport_.next(busy(3));
  transport_.next(json_answer(200, {{"kind", "Pod"}}));
  const TimePoint begin = clock_.now();
  std::atomic<bool> done = false;
  std::thread time([&] {
    while (!done) {
      clock_.advance(std::chrono::milliseconds(250));
      std::this_thread::yield();
    }
  });
  EXPECT_TRUE(client().get(kPods, "ns", "p"));
  EXPECT_GE(clock_.now() - begin, Seconds(3));
  done = true;
  time.join();
}

TEST_F(ClientTest, ALongWaitIsTheCallersBusiness) {
  transport_.next(busy(60));
  const auto result = client().get(kPods, "ns", "p");
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().kind, ErrorKind::kExhausted);
  EXPECT_EQ(result.error().retry_after_s, 60);
  EXPECT_EQ(transport_.requests().size(), 1u);
}

TEST_F(ClientTest, AStopEndsTheWait) {
  transport_.next(busy(3));
  std::thread stopper([&] { stop_.request_stop(); });
  const auto result = client().get(kPods, "ns", "p");
  stopper.join();
  ASSERT_FALSE(result);
}

TEST_F(ClientTest, AListFollowsItsPagesAndNamesItsItems) {
  transport_.next(json_answer(200, {{"kind", "PodList"},
                                    {"apiVersion", "v1"},
                                    {"metadata", {{"resourceVersion", "7"}, {"continue", "tok"}}},
                                    {"items", {{{"metadata", {{"name", "a"}}}}}}}));
  transport_.next(json_answer(200, {{"kind", "PodList"},
                                    {"apiVersion", "v1"},
                                    {"metadata", {{"resourceVersion", "7"}}},
                                    {"items", {{{"metadata", {{"name", "b"}}}}}}}));
  const auto list = client().list(kPods, "ns");
  ASSERT_TRUE(list) << list.error().message;
  ASSERT_EQ(list->items.size(), 2u);
  EXPECT_EQ(list->items[1]["kind"], "Pod");
  EXPECT_EQ(list->items[1]["apiVersion"], "v1");
  EXPECT_EQ(list->resource_version, "7");
  EXPECT_THAT(transport_.requests()[1].target, HasSubstr("continue=tok"));
}

TEST_F(ClientTest, AnAnswerThatIsNoObjectIsTransient) {
  transport_.next(HttpResponse{200, {}, "<html>"});
  const auto result = client().get(kPods, "ns", "p");
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().kind, ErrorKind::kTransient);
}

TEST_F(ClientTest, TheGateHoldsWritesBackAndLetsReadsThrough) {
  ClientOptions options;
  options.timeout = Seconds(8);
  TimePoint asked{};
  options.may_write = [&](TimePoint end) {
    asked = end;
    return false;
  };
  Client gated = client(options);
  const auto write = gated.create(kPods, "ns", {{"metadata", {{"name", "p"}}}});
  ASSERT_FALSE(write);
  EXPECT_EQ(write.error().kind, ErrorKind::kCancelled);
  EXPECT_EQ(asked, clock_.now() + Seconds(8));
  EXPECT_TRUE(transport_.requests().empty());
  transport_.next(json_answer(200, {{"kind", "Pod"}}));
  EXPECT_TRUE(gated.get(kPods, "ns", "p"));
}

TEST_F(ClientTest, EveryRequestIsCounted) {
  MetricsRegistry registry;
  ClientOptions options;
  options.observe = request_metrics(registry, "scripted:443");
  EXPECT_THAT(metrics_text(registry),
              HasSubstr("rest_client_requests_total{code=\"200\",host=\"scripted:443\","
                        "method=\"PATCH\"} 0"));
  Client counted = client(options);
  transport_.next(status_answer(404, "NotFound"));
  (void)counted.get(kPods, "ns", "p");
  transport_.next(fail(ErrorKind::kTransient, "no connection"));
  (void)counted.get(kPods, "ns", "p");
  const std::string text = metrics_text(registry);
  EXPECT_THAT(text, HasSubstr("code=\"404\",host=\"scripted:443\",method=\"GET\"} 1"));
  EXPECT_THAT(text, HasSubstr("code=\"<error>\",host=\"scripted:443\",method=\"GET\"} 1"));
  EXPECT_THAT(text, HasSubstr("rest_client_request_duration_seconds_count"));
}

}  // namespace
}  // namespace dsm::kube
