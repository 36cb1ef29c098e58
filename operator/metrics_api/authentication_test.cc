// The metrics API over TLS, asked directly: with a token, with a client certificate, with nothing.
#include <gmock/gmock.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <latch>
#include <thread>

#include "operator/metrics_api/server_fixture.h"

namespace dsm::metrics_api {
namespace {

using kube::HttpRequest;
using kube::HttpResponse;
using kube::Json;
using kube::testing::json_answer;
using kube::testing::status_answer;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr const char* kToken = "Authorization: Bearer janes-token\r\n";
constexpr const char* kRoot = "X-Remote-User: root\r\nX-Remote-Group: system:masters\r\n";

// An API server that knows one token, and lets jane and the HPA controller have the numbers.
class Authentication : public ServerFixture {
 protected:
  Authentication() {
    transport.on_request([this](const HttpRequest& request) { return answer(request); });
  }
  static bool is_token_review(const HttpRequest& request) {
    return request.target.find("/tokenreviews") != std::string::npos;
  }
  virtual Result<HttpResponse> answer(const HttpRequest& request) {
    const Json spec = Json::parse(request.body)["spec"];
    if (!is_token_review(request)) {
      const bool allowed = spec["user"] == "jane" || spec["user"] == "hpa";
      return json_answer(201, {{"status", {{"allowed", allowed}}}});
    }
    if (spec["token"] != "janes-token") {
      return json_answer(201, {{"status", {{"authenticated", false}}}});
    }
    return json_answer(
        201, {{"status",
               {{"authenticated", true}, {"user", {{"username", "jane"}, {"groups", {"team"}}}}}}});
  }
  // Of those who ask directly.
  KeyPair certificate(const std::string& name) const {
    return make_leaf(clients, {.common_name = name,
                               .organizations = {"team"},
                               .use = LeafRequest::Use::kClient,
                               .from = kFrom,
                               .until = kUntil})
        .value();
  }
  std::size_t token_reviews() const {
    return static_cast<std::size_t>(std::ranges::count_if(transport.requests(), is_token_review));
  }
};

TEST_F(Authentication, a_token_is_asked_about_once_and_then_what_its_user_may_do) {
  for (int i = 0; i < 2; ++i) {
    EXPECT_THAT(get(kQueue, std::string(kToken) + kRoot, ""), HasSubstr("HTTP/1.1 200"));
  }
  ASSERT_EQ(transport.requests().size(), 2U);
  EXPECT_THAT(transport.requests()[1].body,
              AllOf(HasSubstr(R"("user":"jane")"), HasSubstr(R"("team","system:authenticated")"),
                    Not(HasSubstr("masters"))));
}

TEST_F(Authentication, a_token_of_nobody_is_401) {
  const std::string answer = get(kQueue, "Authorization: Bearer made-up\r\n", "");
  EXPECT_THAT(answer, HasSubstr("HTTP/1.1 401"));
  EXPECT_THAT(answer, Not(HasSubstr("made-up")));
  EXPECT_EQ(transport.requests().size(), 1U) << "what nobody may do is not asked";
}

TEST_F(Authentication, a_client_certificate_names_its_user) {
  EXPECT_THAT(get_with(kQueue, kRoot, certificate("jane")), HasSubstr("HTTP/1.1 200"));
  EXPECT_THAT(
      transport.requests()[0].body,
      AllOf(HasSubstr(R"("user":"jane")"), HasSubstr(R"("team")"), Not(HasSubstr("masters"))));
  EXPECT_THAT(get_with(kQueue, kRoot, certificate("joe")),
              AllOf(HasSubstr("HTTP/1.1 403"), HasSubstr("joe may not")));
  EXPECT_EQ(token_reviews(), 0U);
}

TEST_F(Authentication, of_several_names_the_certificates_counts) {
  EXPECT_THAT(get_with(kQueue, kToken, certificate("joe")), HasSubstr("HTTP/1.1 403"));
  EXPECT_THAT(get(kQueue, std::string("X-Remote-User: joe\r\n") + kToken), HasSubstr("403"));
  EXPECT_EQ(token_reviews(), 0U);
}

TEST_F(Authentication, who_shows_nothing_is_401_for_everything_but_health) {
  for (const char* path : {kQueue, kObject, "/apis", "/apis/external.metrics.k8s.io/v1beta1"}) {
    EXPECT_THAT(get(path, kRoot, ""), HasSubstr("HTTP/1.1 401")) << path;
  }
  EXPECT_THAT(get("/healthz", "", ""), HasSubstr("HTTP/1.1 200"));
  EXPECT_TRUE(transport.requests().empty());
}

TEST_F(Authentication, a_path_that_is_no_text_is_400_for_whom_it_may_concern) {
  EXPECT_THAT(get("/apis/%ff", kToken, ""), HasSubstr("HTTP/1.1 400"));
  EXPECT_THAT(get("/apis/%ff", kJane), HasSubstr("HTTP/1.1 400"));
}

class NoAnswer : public Authentication {
 protected:
  Result<HttpResponse> answer(const HttpRequest& request) override {
    if (!is_token_review(request)) return Authentication::answer(request);
    if (forbidden) return status_answer(403, "Forbidden", "the operator may not create that");
    return fail(ErrorKind::kTransient, "no answer in time");
  }
  std::atomic<bool> forbidden = false;
};

TEST_F(NoAnswer, about_a_token_is_503_and_not_401) {
  EXPECT_THAT(get(kQueue, kToken, ""), HasSubstr("HTTP/1.1 503"));
  forbidden = true;
  const std::string answer = get(kQueue, kToken, "");
  EXPECT_THAT(answer, AllOf(HasSubstr("HTTP/1.1 503"), Not(HasSubstr("the operator may not"))));
  EXPECT_THAT(get(kQueue, "X-Remote-User: hpa\r\n"), HasSubstr("HTTP/1.1 200"));
}

class SlowTokens : public Authentication {
 protected:
  Result<HttpResponse> answer(const HttpRequest& request) override {
    if (is_token_review(request)) {
      if (!asked_once.exchange(true)) asked.count_down();
      go_on.wait();
    }
    return Authentication::answer(request);
  }
  std::atomic<bool> asked_once = false;
  std::latch asked{1};
  std::latch go_on{1};
};

TEST_F(SlowTokens, do_not_hold_up_whom_the_api_server_sends) {
  auto stranger = std::async(std::launch::async, [this] { return get(kQueue, kToken, ""); });
  asked.wait();
  EXPECT_THAT(get(kQueue, "X-Remote-User: hpa\r\n"), HasSubstr("HTTP/1.1 200"));
  go_on.count_down();
  EXPECT_THAT(stranger.get(), HasSubstr("HTTP/1.1 200"));
}

TEST(AskerTest, keeps_so_many_waiting_and_drops_them_when_it_stops) {
  Asker asker;
  EXPECT_FALSE(asker.add([] {})) << "it does not run yet";
  asker.start();
  std::latch asked{1};
  std::latch go_on{1};
  EXPECT_TRUE(asker.add([&] {
    asked.count_down();
    go_on.wait();
  }));
  asked.wait();
  std::atomic<int> answered = 0;
  auto exchange = std::make_shared<int>();
  for (std::size_t i = 0; i < Asker::kMost; ++i) {
    EXPECT_TRUE(asker.add([&answered, exchange] { ++answered; }));
  }
  EXPECT_FALSE(asker.add([] {}));
  auto stopped = std::async(std::launch::async, [&] { asker.stop(); });
  while (exchange.use_count() > 1) std::this_thread::yield();
  go_on.count_down();
  stopped.get();
  EXPECT_EQ(answered, 0);
  EXPECT_FALSE(asker.add([] {}));
}

}  // namespace
}  // namespace dsm::metrics_api
