// Whatever a request shows of its sender, somebody is found by a certificate that counts alone, and
// what is asked about him can be sent to the API server.
#include <gtest/gtest.h>

#include "base/certificate.h"
#include "operator/metrics_api/access.h"
#include "operator/metrics_api/identity.h"
#include "operator/metrics_api/utf8.h"
#include "tests/fuzz/mutate.h"

namespace dsm::metrics_api {
namespace {

using fuzz::mutate;
using fuzz::Random;

const WallTime kNow = from_rfc3339("2026-06-01T00:00:00Z");
constexpr std::chrono::hours kDay{24};

class IdentityFuzz : public testing::Test {
 protected:
  static KeyPair authority() { return make_authority("ca", kNow - kDay, kNow + kDay).value(); }
  static std::string client(const KeyPair& by, const std::string& name) {
    return make_leaf(by, {.common_name = name,
                          .organizations = {"team"},
                          .use = LeafRequest::Use::kClient,
                          .from = kNow - kDay,
                          .until = kNow + kDay})
        ->certificate;
  }
  http::Request random_request(Random& random) const {
    static constexpr std::string_view kNames[] = {"X-Remote-User", "X-Remote-Group", "X-Remote-Uid",
                                                  "X-Remote-Extra-Scopes%2Fa"};
    static constexpr std::string_view kValues[] = {"jane", "system:masters", "a, b", "",
                                                   "\xC3\xA9"};
    static constexpr std::string_view kTokens[] = {"Bearer abc.def", "bearer x", "Basic abc", ""};
    http::Request request;
    for (std::size_t n = random.below(6); n > 0; --n) {
      std::string name(random.pick(kNames));
      std::string value(random.pick(kValues));
      if (random.chance(20)) name = mutate(name, random);
      if (random.chance(40)) value = mutate(value, random);
      request.header_lines.emplace_back(std::move(name), std::move(value));
    }
    request.headers["Authorization"] = mutate(std::string(random.pick(kTokens)), random);
    return request;
  }
  // What every outcome has to be. Answers with the user that is named.
  std::optional<User> look_at(const http::Request& request) const {
    const auto caller = identify(trust, request, kNow);
    if (!caller) {
      EXPECT_FALSE(caller.error().message.empty());
      return std::nullopt;
    }
    if (const auto* token = std::get_if<BearerToken>(&*caller)) {
      EXPECT_FALSE(token->text.empty());
      EXPECT_LE(token->text.size(), kLongestToken);
      EXPECT_TRUE(is_utf8(token->text));
      return std::nullopt;
    }
    const User& user = std::get<User>(*caller);
    EXPECT_FALSE(user.name.empty());
    for (const char* path :
         {"/apis", "/apis/external.metrics.k8s.io/v1beta1/namespaces/ns/dsm_queue_depth"}) {
      EXPECT_NO_THROW(review_of(user, call_of(path, "").value()).dump());
    }
    return user;
  }

  const KeyPair proxies = authority();
  const KeyPair clients = authority();
  const Trust trust{{proxies.certificate,
                     {"proxy"},
                     {"X-Remote-User"},
                     {"X-Remote-Uid"},
                     {"X-Remote-Group"},
                     {"X-Remote-Extra-"}},
                    clients.certificate};
};

TEST_F(IdentityFuzz, HeadersOfTheFrontProxyNameSomebodyWhoCanBeAskedAbout) {
  const std::string certificate = client(proxies, "proxy");
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    http::Request request = random_request(random);
    request.peer_certificates = certificate;
    look_at(request);
  }
}

TEST_F(IdentityFuzz, WithoutACertificateNobodyIsNamed) {
  for (std::uint64_t seed = 1; seed <= 5000; ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    EXPECT_FALSE(look_at(random_request(random)));
  }
}

TEST_F(IdentityFuzz, ABrokenCertificateNamesNobodyElse) {
  const std::string certificate = client(clients, "jane");
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    http::Request request = random_request(random);
    request.peer_certificates = mutate(certificate, random);
    const auto user = look_at(request);
    EXPECT_EQ(user ? user->name : "jane", "jane");
  }
}

}  // namespace
}  // namespace dsm::metrics_api
