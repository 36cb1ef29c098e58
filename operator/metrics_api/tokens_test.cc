#include "operator/metrics_api/tokens.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kube/testing/scripted_transport.h"

namespace dsm::metrics_api {
namespace {

using kube::Json;
using kube::testing::json_answer;
using kube::testing::ScriptedTransport;
using kube::testing::status_answer;
using testing::ElementsAre;
using testing::StartsWith;

const BearerToken kToken{"abc"};
const Json kJane =
    Json::parse(R"({"authenticated": true, "audiences": ["https://kubernetes.default.svc"],
                    "user": {"username": "jane", "uid": "42", "groups": ["team"],
                             "extra": {"scopes": ["a", "b"]}}})");

class TokensTest : public testing::Test {
 protected:
  void the_api_server_says(const Json& status) {
    transport.next(json_answer(201, {{"status", status}}));
  }

  // The user; one without a name when there is none.
  User asked() { return tokens.ask(kToken).value().value_or(User()); }

  ScriptedTransport transport;
  ManualClock clock;
  kube::Client client{transport, clock, {}};
  Tokens tokens{client};
};

TEST_F(TokensTest, a_token_is_whose_the_api_server_says_for_ten_seconds) {
  EXPECT_FALSE(tokens.known(kToken));
  the_api_server_says(kJane);
  const User user = asked();
  EXPECT_EQ(user.name, "jane");
  EXPECT_EQ(user.uid, "42");
  EXPECT_THAT(user.groups, ElementsAre("team", "system:authenticated"));
  EXPECT_EQ(user.extra, (decltype(user.extra){{"scopes", {"a", "b"}}}));
  EXPECT_EQ(tokens.known(kToken).value_or(User()).name, "jane");
  EXPECT_FALSE(tokens.known({"abd"}));
  clock.advance(Kept<User>::kFor);
  EXPECT_FALSE(tokens.known(kToken));
}

TEST_F(TokensTest, the_question_is_for_no_audience_but_the_api_servers_own) {
  the_api_server_says(kJane);
  ASSERT_TRUE(tokens.ask(kToken));
  ASSERT_EQ(transport.requests().size(), 1U);
  EXPECT_THAT(transport.requests()[0].target,
              StartsWith("/apis/authentication.k8s.io/v1/tokenreviews"));
  EXPECT_EQ(Json::parse(transport.requests()[0].body),
            Json::parse(R"({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
                            "spec": {"token": "abc"}})"));
}

TEST_F(TokensTest, a_token_of_nobody_is_asked_about_again) {
  the_api_server_says({{"authenticated", false}, {"error", "invalid bearer token"}});
  const auto user = tokens.ask(kToken);
  ASSERT_TRUE(user);
  EXPECT_FALSE(*user);
  EXPECT_FALSE(tokens.known(kToken));
  the_api_server_says(kJane);
  EXPECT_TRUE(*tokens.ask(kToken));
}

TEST_F(TokensTest, no_answer_says_nothing_about_the_token) {
  transport.next(fail(ErrorKind::kTransient, "no answer in time"));
  EXPECT_EQ(tokens.ask(kToken).error().kind, ErrorKind::kTransient);
  transport.next(status_answer(403, "Forbidden"));  // we may not ask
  EXPECT_EQ(tokens.ask(kToken).error().kind, ErrorKind::kDenied);
  EXPECT_FALSE(tokens.known(kToken));
}

TEST_F(TokensTest, an_answer_that_names_nobody_is_nobodys) {
  for (const char* status :
       {"null", "5", "{}", R"({"authenticated": "true", "user": {"username": "jane"}})",
        R"({"authenticated": true})", R"({"authenticated": true, "user": "jane"})",
        R"({"authenticated": true, "user": {"username": ""}})",
        R"({"authenticated": true, "user": {"username": ["jane"]}})"}) {
    the_api_server_says(Json::parse(status));
    const auto user = tokens.ask(kToken);
    EXPECT_TRUE(user && !*user) << status;
  }
  the_api_server_says(Json::parse(
      R"({"authenticated": true, "user": {"username": "jane", "groups": 5, "extra": "x"}})"));
  EXPECT_THAT(asked().groups, ElementsAre("system:authenticated"));
}

TEST_F(TokensTest, what_is_kept_has_a_bound) {
  transport.on_request([](const auto&) { return json_answer(201, {{"status", kJane}}); });
  for (std::size_t i = 0; i <= Kept<User>::kMost; ++i) {
    ASSERT_TRUE(tokens.ask({"token-" + std::to_string(i)}));
  }
  EXPECT_FALSE(tokens.known({"token-0"}));
  EXPECT_TRUE(tokens.known({"token-" + std::to_string(Kept<User>::kMost)}));
}

}  // namespace
}  // namespace dsm::metrics_api
