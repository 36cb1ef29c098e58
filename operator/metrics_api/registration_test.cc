#include "operator/metrics_api/registration.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kube/config.h"

namespace dsm::metrics_api {
namespace {

using testing::HasSubstr;
using testing::Not;

const WallTime kNow = from_rfc3339("2026-06-01T00:00:00Z");
const Place kPlace{"system", "dsm-metrics-api", "dsm"};

TEST(Certificate, that_is_made_is_read_back_from_its_secret) {
  const auto made = new_serving(nullptr, kPlace, kNow);
  ASSERT_TRUE(made) << made.error().message;
  const Json secret = secret_json(*made, kPlace, "uid", "");
  EXPECT_EQ(secret["metadata"]["name"], "dsm-metrics-api-tls");
  EXPECT_EQ(secret["metadata"]["namespace"], "system");
  EXPECT_EQ(secret["metadata"]["ownerReferences"][0]["kind"], "ClusterRole");
  EXPECT_FALSE(secret["metadata"].contains("resourceVersion"));
  const auto read = serving_of(secret);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(*read, *made);
  EXPECT_EQ(certificate_facts(read->pair.certificate)->dns_names,
            std::vector<std::string>{"dsm-metrics-api.system.svc"});
}

TEST(Certificate, is_renewed_before_its_end_and_when_it_is_for_another_name) {
  const Serving made = new_serving(nullptr, kPlace, kNow).value();
  EXPECT_TRUE(must_renew(nullptr, kPlace, kNow));
  EXPECT_FALSE(must_renew(&made, kPlace, kNow));
  const WallTime late = kNow + kCertificateLife - kRenewBefore;
  EXPECT_FALSE(must_renew(&made, kPlace, late));
  EXPECT_TRUE(must_renew(&made, kPlace, late + Seconds(1)));
  EXPECT_TRUE(must_renew(&made, {"elsewhere", kPlace.service, ""}, kNow));
  EXPECT_TRUE(must_renew(&made, {"system", "renamed", ""}, kNow));
}

TEST(Certificate, the_authority_before_is_still_trusted_and_no_older_one) {
  const Serving first = new_serving(nullptr, kPlace, kNow).value();
  const Serving second = new_serving(&first, kPlace, kNow).value();
  const Serving third = new_serving(&second, kPlace, kNow).value();
  EXPECT_NE(first.authorities, second.authorities);
  EXPECT_THAT(second.authorities, HasSubstr(first.authorities));
  EXPECT_THAT(third.authorities, Not(HasSubstr(first.authorities)));
}

TEST(Certificate, a_secret_without_one_is_invalid) {
  Json secret = secret_json(new_serving(nullptr, kPlace, kNow).value(), kPlace, "uid", "7");
  EXPECT_EQ(secret["metadata"]["resourceVersion"], "7");
  secret["data"]["tls.key"] = "!";
  EXPECT_THAT(serving_of(secret).error().message, HasSubstr("tls.key"));
  EXPECT_FALSE(serving_of(Json::object()));
  EXPECT_FALSE(serving_of(Json()));
}

TEST(ApiService, names_service_authority_and_owner) {
  const Json made = api_service_json(kExternalMetrics, "pem", kPlace, "uid");
  EXPECT_EQ(made["metadata"]["name"], "v1beta1.external.metrics.k8s.io");
  EXPECT_EQ(made["spec"]["group"], "external.metrics.k8s.io");
  EXPECT_EQ(made["spec"]["version"], "v1beta1");
  EXPECT_EQ(made["metadata"]["ownerReferences"][0],
            Json::parse(R"({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
                            "name": "dsm", "uid": "uid"})"));
  EXPECT_EQ(kube::base64_decode(made["spec"]["caBundle"].get<std::string>()).value(), "pem");
  EXPECT_EQ(made["spec"]["service"],
            Json::parse(R"({"namespace": "system", "name": "dsm-metrics-api", "port": 443})"));
  const Json custom = api_service_json(kCustomMetrics, "pem", kPlace, "uid");
  EXPECT_EQ(custom["metadata"]["name"], "v1beta2.custom.metrics.k8s.io");
  EXPECT_EQ(custom["spec"]["group"], "custom.metrics.k8s.io");
  EXPECT_EQ(custom["spec"]["version"], "v1beta2");
}

TEST(ApiService, is_free_ours_or_somebody_elses) {
  EXPECT_EQ(claim_of(nullptr, kPlace).kind, Claim::Kind::kFree);
  Json one = api_service_json(kExternalMetrics, "pem", kPlace, "uid");
  EXPECT_EQ(claim_of(&one, kPlace).kind, Claim::Kind::kOurs);
  // Another installation of the same operator is somebody else.
  EXPECT_EQ(claim_of(&one, {"elsewhere", "dsm-metrics-api", ""}).kind, Claim::Kind::kForeign);
  one["metadata"]["labels"] = Json::object();
  const Claim foreign = claim_of(&one, kPlace);
  EXPECT_EQ(foreign.kind, Claim::Kind::kForeign);
  EXPECT_EQ(foreign.owner, "Service system/dsm-metrics-api");
  one["spec"].erase("service");
  EXPECT_EQ(claim_of(&one, kPlace).owner, "an APIService without a Service");
}

TEST(Registration, takes_external_metrics_or_else_custom_ones_that_nobody_has) {
  using State = plan::MetricsApi::State;
  const Claim nobody{};
  const Claim ours{Claim::Kind::kOurs, ""};
  const Claim keda{Claim::Kind::kForeign, "keda"};
  const Claim adapter{Claim::Kind::kForeign, "adapter"};
  struct Row {
    Claims claims;
    Deed external = Deed::kLeave;
    Deed custom = Deed::kLeave;
    plan::MetricsApi state;
  };
  const std::vector<Row> rows = {
      // external, custom, and the older version of custom
      {{nobody, nobody, nobody}, Deed::kKeep, Deed::kLeave, {State::kOurs}},
      {{ours, nobody, nobody}, Deed::kKeep, Deed::kLeave, {State::kOurs}},
      {{ours, adapter, adapter}, Deed::kKeep, Deed::kLeave, {State::kOurs}},
      {{keda, nobody, nobody}, Deed::kLeave, Deed::kKeep, {State::kCustom, "keda"}},
      {{keda, ours, nobody}, Deed::kLeave, Deed::kKeep, {State::kCustom, "keda"}},
      {{keda, adapter, nobody}, Deed::kLeave, Deed::kLeave, {State::kForeign, "keda", "adapter"}},
      // An adapter of the older version alone would be hidden by ours.
      {{keda, nobody, adapter}, Deed::kLeave, Deed::kLeave, {State::kForeign, "keda", "adapter"}},
      {{keda, ours, adapter}, Deed::kLeave, Deed::kRemove, {State::kForeign, "keda", "adapter"}},
      // External metrics are free again.
      {{nobody, ours, nobody}, Deed::kKeep, Deed::kRemove, {State::kOurs}},
      {{ours, ours, adapter}, Deed::kKeep, Deed::kRemove, {State::kOurs}},
  };
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Registration made = registration_for(rows[i].claims);
    EXPECT_EQ(made.external, rows[i].external) << "row " << i;
    EXPECT_EQ(made.custom, rows[i].custom) << "row " << i;
    EXPECT_EQ(made.state, rows[i].state) << "row " << i;
  }
}

}  // namespace
}  // namespace dsm::metrics_api
