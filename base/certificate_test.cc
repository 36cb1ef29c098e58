#include "base/certificate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace dsm {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const WallTime kNow = from_rfc3339("2026-06-01T00:00:00Z");
constexpr std::chrono::hours kDay{24};

KeyPair authority(const std::string& name = "an authority") {
  return make_authority(name, kNow - kDay, kNow + 10 * kDay).value();
}

std::string client(const KeyPair& by, LeafRequest::Use use = LeafRequest::Use::kClient) {
  return make_leaf(by,
                   {.common_name = "proxy", .use = use, .from = kNow - kDay, .until = kNow + kDay})
      ->certificate;
}

TEST(Certificate, says_who_it_is_for_and_how_long) {
  const auto made = make_leaf(authority(), {.common_name = "a.ns.svc",
                                            .dns_names = {"a.ns.svc", "a.ns"},
                                            .from = kNow,
                                            .until = kNow + kDay});
  ASSERT_TRUE(made) << made.error().message;
  EXPECT_THAT(made->key, HasSubstr("PRIVATE KEY"));
  const auto facts = certificate_facts(made->certificate);
  ASSERT_TRUE(facts);
  EXPECT_EQ(facts->common_name, "a.ns.svc");
  EXPECT_THAT(facts->dns_names, ElementsAre("a.ns.svc", "a.ns"));
  EXPECT_EQ(facts->from, kNow);
  EXPECT_EQ(facts->until, kNow + kDay);
}

TEST(Certificate, of_a_text_that_holds_none_says_so) {
  EXPECT_EQ(certificate_facts("hello").error().kind, ErrorKind::kInvalid);
  EXPECT_FALSE(make_leaf({"hello", "world"}, {.common_name = "x", .from = kNow, .until = kNow}));
}

TEST(ClientCertificate, is_accepted_by_its_own_authority_alone) {
  const KeyPair ours = authority();
  const KeyPair other = authority("another");
  EXPECT_TRUE(check_client(client(ours), ours.certificate, kNow));
  EXPECT_TRUE(check_client(client(ours), other.certificate + ours.certificate, kNow));
  EXPECT_EQ(check_client(client(ours), other.certificate, kNow).error().kind, ErrorKind::kDenied);
  // Nor does the same name make it one.
  EXPECT_FALSE(check_client(client(authority()), ours.certificate, kNow));
}

TEST(ClientCertificate, is_not_accepted_out_of_its_time_or_for_another_use) {
  const KeyPair ours = authority();
  EXPECT_FALSE(check_client(client(ours), ours.certificate, kNow + 2 * kDay));
  EXPECT_FALSE(check_client(client(ours), ours.certificate, kNow - 2 * kDay));
  EXPECT_FALSE(check_client(client(ours, LeafRequest::Use::kServer), ours.certificate, kNow));
}

TEST(ClientCertificate, none_or_nothing_to_judge_by_is_told_apart) {
  EXPECT_EQ(check_client("", authority().certificate, kNow).error().kind, ErrorKind::kDenied);
  EXPECT_EQ(check_client(client(authority()), "", kNow).error().kind, ErrorKind::kInvalid);
}

}  // namespace
}  // namespace dsm
