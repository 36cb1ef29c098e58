// Who asks directly, without the front proxy: by a client certificate, or by a token that is only
// read here.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/certificate.h"
#include "operator/metrics_api/identity.h"

namespace dsm::metrics_api {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const WallTime kNow = from_rfc3339("2026-06-01T00:00:00Z");
constexpr std::chrono::hours kDay{24};
// Subject CN=first, O=a, CN=last, O=b; by `openssl req -x509`.
constexpr const char* kTwoNames = R"(-----BEGIN CERTIFICATE-----
MIIBxjCCAWugAwIBAgIUGU0VIqykDq9Albj14hQfAZUqjykwCgYIKoZIzj0EAwIw
NzEOMAwGA1UEAwwFZmlyc3QxCjAIBgNVBAoMAWExDTALBgNVBAMMBGxhc3QxCjAI
BgNVBAoMAWIwIBcNMjYxMTI2MTk0MjEzWhgPMjEyNjExMDIxOTQyMTNaMDcxDjAM
BgNVBAMMBWZpcnN0MQowCAYDVQQKDAFhMQ0wCwYDVQQDDARsYXN0MQowCAYDVQQK
DAFiMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEfsRlxhDMf/IlNUDNeBHVBbus
ndfrg6EvXzl3ni3yRQlHAC9B2ynuMbqpyyZBK6UGRd32xcDnDFEkCSkgCmBmZaNT
MFEwHQYDVR0OBBYEFGLLLlH7eTv++px7tZOWDNwILGBYMB8GA1UdIwQYMBaAFGLL
LlH7eTv++px7tZOWDNwILGBYMA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwID
SQAwRgIhAIN+grPbyFvDcx6OqIhmFYmwNId7Ku16Aq3tDdI01nd9AiEA/qsFdaUc
7EehX3T3qYc6iv+YhcJFRB7gGTeefB0Wk6A=
-----END CERTIFICATE-----
)";

class DirectCaller : public testing::Test {
 protected:
  std::string jane(const KeyPair& authority, WallTime until = kNow + kDay) const {
    return make_leaf(authority, {.common_name = "jane",
                                 .organizations = {"team", "ops"},
                                 .use = LeafRequest::Use::kClient,
                                 .from = kNow - kDay,
                                 .until = until})
        ->certificate;
  }
  Result<std::variant<User, BearerToken>> identify(const http::Request& request) const {
    return metrics_api::identify(trust, request, kNow);
  }
  Result<std::variant<User, BearerToken>> with_authorization(const std::string& value) const {
    http::Request request;
    request.headers["Authorization"] = value;
    return identify(request);
  }
  std::string token_in(const std::string& value) const {
    const auto caller = with_authorization(value);
    return caller ? std::get<BearerToken>(*caller).text : "none: " + caller.error().message;
  }

  const KeyPair proxies = make_authority("front-proxy-ca", kNow - kDay, kNow + kDay).value();
  const KeyPair clients = make_authority("client-ca", kNow - kDay, kNow + kDay).value();
  Trust trust{
      {proxies.certificate, {"front-proxy-client"}, {"X-Remote-User"}, {}, {"X-Remote-Group"}, {}},
      clients.certificate};
};

TEST_F(DirectCaller, with_a_certificate_of_the_clients_authority_is_whom_it_names) {
  http::Request request;
  request.peer_certificates = jane(clients);
  request.header_lines = {{"X-Remote-User", "root"}, {"X-Remote-Group", "system:masters"}};
  request.headers["Authorization"] = "Bearer abc";
  const auto caller = identify(request);
  ASSERT_TRUE(caller) << caller.error().message;
  const User& user = std::get<User>(*caller);
  EXPECT_EQ(user.name, "jane");
  EXPECT_THAT(user.groups, ElementsAre("team", "ops", "system:authenticated"));
}

TEST_F(DirectCaller, may_be_by_any_of_the_authorities_that_are_published) {
  std::string bundle;
  for (int i = 0; i < 20; ++i) {
    bundle += make_authority("older-ca", kNow - kDay, kNow + kDay)->certificate;
  }
  trust.client_authorities = bundle + clients.certificate;
  http::Request request;
  request.peer_certificates = jane(clients);
  EXPECT_TRUE(identify(request));
  trust.client_authorities = bundle;
  EXPECT_FALSE(identify(request));
}

TEST_F(DirectCaller, is_nobody_by_a_certificate_that_does_not_count) {
  http::Request request;
  request.peer_certificates = jane(proxies);  // of the other authority, and not the front proxy
  EXPECT_THAT(identify(request).error().message, HasSubstr("as a client"));
  EXPECT_EQ(identify(request).error().kind, ErrorKind::kDenied);
  request.peer_certificates = jane(clients, kNow - std::chrono::hours(1));  // ended
  EXPECT_FALSE(identify(request));
  request.peer_certificates =
      make_leaf(clients, {.common_name = "jane", .from = kNow - kDay, .until = kNow + kDay})
          ->certificate;  // a server's
  EXPECT_FALSE(identify(request));
  request.peer_certificates = jane(clients);
  trust.client_authorities.clear();
  EXPECT_THAT(identify(request).error().message, HasSubstr("publishes no authority of clients"));
}

TEST_F(DirectCaller, is_nobody_by_a_certificate_without_a_name) {
  http::Request request;
  const auto made = make_leaf(clients, {.common_name = "",
                                        .organizations = {"system:masters"},
                                        .use = LeafRequest::Use::kClient,
                                        .from = kNow - kDay,
                                        .until = kNow + kDay});
  ASSERT_TRUE(made) << made.error().message;
  request.peer_certificates = made->certificate;
  EXPECT_THAT(identify(request).error().message, HasSubstr("names no user"));
}

TEST_F(DirectCaller, with_a_certificate_that_does_not_count_may_still_show_a_token) {
  http::Request request;
  request.peer_certificates = jane(proxies);
  request.headers["Authorization"] = "Bearer abc";
  const auto caller = identify(request);
  ASSERT_TRUE(caller);
  EXPECT_EQ(std::get<BearerToken>(*caller).text, "abc");
}

TEST_F(DirectCaller, shows_a_token_as_rfc_6750_says) {
  EXPECT_EQ(token_in("Bearer abc.d-e_f~g+h/i=="), "abc.d-e_f~g+h/i==");
  EXPECT_EQ(token_in("bearer abc"), "abc");
  EXPECT_EQ(token_in("Bearer " + std::string(kLongestToken, 'a')).size(), kLongestToken);
}

TEST_F(DirectCaller, shows_no_token_otherwise) {
  for (const std::string value : {"", "Bearer", "Bearer ", "Basic abc", "Bearerabc", "abc"}) {
    EXPECT_THAT(token_in(value), HasSubstr("nobody is named")) << value;
  }
  EXPECT_THAT(token_in("Bearer a b"), HasSubstr("characters that no token has"));
  EXPECT_THAT(token_in("Bearer a, Bearer b"), HasSubstr("characters that no token has"));
  EXPECT_THAT(token_in("Bearer a\xFF"), HasSubstr("characters that no token has"));
  EXPECT_THAT(token_in("Bearer " + std::string(kLongestToken + 1, 'a')),
              HasSubstr("longer than 16384"));
}

TEST_F(DirectCaller, has_the_last_of_several_names_as_for_kubernetes) {
  const auto facts = certificate_facts(kTwoNames);
  ASSERT_TRUE(facts);
  EXPECT_EQ(facts->common_name, "last");
  EXPECT_THAT(facts->organizations, ElementsAre("a", "b"));
}

TEST_F(DirectCaller, cannot_be_named_by_a_proxy_in_bytes_that_are_no_text) {
  http::Request request;
  request.peer_certificates = make_leaf(proxies, {.common_name = "front-proxy-client",
                                                  .use = LeafRequest::Use::kClient,
                                                  .from = kNow - kDay,
                                                  .until = kNow + kDay})
                                  ->certificate;
  request.header_lines = {{"X-Remote-User", "jane\xC3"}};
  EXPECT_THAT(identify(request).error().message, HasSubstr("not UTF-8"));
  request.header_lines = {{"X-Remote-User", "jane\xC3\xA9"}};
  EXPECT_TRUE(identify(request));
}

}  // namespace
}  // namespace dsm::metrics_api
