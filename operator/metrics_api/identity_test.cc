#include "operator/metrics_api/identity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/certificate.h"

namespace dsm::metrics_api {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

const WallTime kNow = from_rfc3339("2026-06-01T00:00:00Z");
constexpr std::chrono::hours kDay{24};

std::string client(const KeyPair& authority, const std::string& name) {
  return make_leaf(authority, {.common_name = name,
                               .use = LeafRequest::Use::kClient,
                               .from = kNow - kDay,
                               .until = kNow + kDay})
      ->certificate;
}

class Identity : public testing::Test {
 protected:
  // The ConfigMap as kube-apiserver writes it.
  json config_map() const {
    return {{"data",
             {{"client-ca-file", "another authority"},
              {"requestheader-client-ca-file", authority.certificate},
              {"requestheader-allowed-names", R"(["front-proxy-client"])"},
              {"requestheader-username-headers", R"(["X-Remote-User"])"},
              {"requestheader-uid-headers", R"(["X-Remote-Uid"])"},
              {"requestheader-group-headers", R"(["X-Remote-Group"])"},
              {"requestheader-extra-headers-prefix", R"(["X-Remote-Extra-"])"}}}};
  }
  http::Request from(const std::string& name) const {
    http::Request request;
    request.peer_certificates = client(authority, name);
    request.header_lines = {{"X-Remote-User", "jane"}};
    return request;
  }
  static Result<User> user_by(const json& config_map, const http::Request& request) {
    auto caller = metrics_api::identify(trust_of(config_map).value(), request, kNow);
    if (!caller) return std::unexpected(caller.error());
    return std::get<User>(*std::move(caller));
  }
  Result<User> identify(const http::Request& request) const {
    return user_by(config_map(), request);
  }

  const KeyPair authority = make_authority("front-proxy-ca", kNow - kDay, kNow + kDay).value();
};

TEST_F(Identity, is_what_the_front_proxy_says) {
  http::Request request = from("front-proxy-client");
  request.header_lines = {{"x-remote-user", "jane"},
                          {"X-Remote-Uid", "42"},
                          {"X-Remote-Group", "one, two"},
                          {"X-Remote-Group", "system:authenticated"},
                          {"X-Remote-Extra-Scopes%2FAll", "a"},
                          {"X-Remote-Extra-scopes%2fall", "b"},
                          {"X-Other", "c"}};
  const auto user = identify(request);
  ASSERT_TRUE(user) << user.error().message;
  EXPECT_EQ(user->name, "jane");
  EXPECT_EQ(user->uid, "42");
  // A group whose name has a comma stays one group.
  EXPECT_THAT(user->groups, ElementsAre("one, two", "system:authenticated"));
  ASSERT_EQ(user->extra.size(), 1U);
  EXPECT_THAT(user->extra.at("scopes/all"), ElementsAre("a", "b"));
}

TEST_F(Identity, of_a_user_without_groups_is_still_authenticated) {
  EXPECT_THAT(identify(from("front-proxy-client"))->groups, ElementsAre("system:authenticated"));
  http::Request request = from("front-proxy-client");
  request.header_lines = {{"X-Remote-User", "system:anonymous"},
                          {"X-Remote-Group", "system:unauthenticated"}};
  EXPECT_THAT(identify(request)->groups, ElementsAre("system:unauthenticated"));
}

TEST_F(Identity, headers_of_anybody_else_say_nothing) {
  http::Request request = from("front-proxy-client");
  request.peer_certificates.clear();
  EXPECT_EQ(identify(request).error().kind, ErrorKind::kDenied);
  request = from("somebody");  // of the right authority, but not the front proxy
  EXPECT_THAT(identify(request).error().message, HasSubstr("certificate of somebody"));
  const KeyPair other = make_authority("front-proxy-ca", kNow - kDay, kNow + kDay).value();
  request.peer_certificates = client(other, "front-proxy-client");
  EXPECT_EQ(identify(request).error().kind, ErrorKind::kDenied);
}

TEST_F(Identity, needs_a_user) {
  http::Request request = from("front-proxy-client");
  request.header_lines.clear();
  EXPECT_THAT(identify(request).error().message, HasSubstr("no user"));
}

TEST_F(Identity, without_allowed_names_every_client_of_the_authority_is_the_proxy) {
  json map = config_map();
  map["data"]["requestheader-allowed-names"] = "[]";
  EXPECT_TRUE(user_by(map, from("somebody")));
}

TEST(Trust, that_the_cluster_does_not_publish_is_said) {
  EXPECT_THAT(trust_of(json::object()).error().message, HasSubstr("requestheader-client-ca-file"));
  EXPECT_FALSE(trust_of({{"data", {{"client-ca-file", "x"}}}}));
}

}  // namespace
}  // namespace dsm::metrics_api
