// Specs that the schema would refuse but that may be stored all the same: refused with the field's
// path, or within the bounds that the planner relies on.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "operator/api/quantity.h"
#include "operator/api/spec.h"
#include "operator/api/tenant.h"
#include "tests/fuzz/mutate.h"

namespace dsm::api {
namespace {

TEST(SpecFuzz, ABrokenSpecIsRefusedOrCanBePlanned) {
  const std::string good =
      R"({"model": {"uri": "image:///models/deepseek-tiny", "servedName": "tiny", "revision": "1"},
    "parallelism": {"tensor": 4, "ranksPerPod": 2}, "replicas": 2, "accelerator": {"resource": "cpu"},
    "engine": {"maxModelLen": 2048, "maxNumSeqs": 8, "prefixCaching": true},
    "rollout": {"maxSurge": 1, "maxUnavailable": 0},
    "placement": {"nodeSelector": {"a": "b"}, "tolerations": [{"key": "k", "operator": "Exists"}]},
    "template": {"labels": {"x": "y"}}})";
  fuzz::Random random(1);
  int accepted = 0;
  int refused = 0;
  for (int i = 0; i < 8000; ++i) {
    nlohmann::json json =
        nlohmann::json::parse(fuzz::mutate(good, random), nullptr, /*allow_exceptions=*/false);
    if (json.is_discarded()) continue;
    Result<Spec> spec = parse_spec(json);
    if (!spec) {
      ++refused;
      EXPECT_EQ(spec.error().kind, ErrorKind::kInvalid);
      EXPECT_NE(spec.error().message.find("spec"), std::string::npos) << spec.error().message;
      continue;
    }
    ++accepted;
    EXPECT_GE(spec->replicas, 0);
    EXPECT_GE(spec->parallelism.tensor, 1);
    EXPECT_EQ(spec->parallelism.tensor % spec->ranks_per_pod(), 0);
    EXPECT_EQ(revision_of(*spec).size(), 8U);
    // The text that a revision is the hash of reads back as the same spec.
    Result<Spec> again = parse_spec(pod_shape(*spec));
    ASSERT_TRUE(again.has_value()) << again.error().message;
    EXPECT_EQ(revision_of(*again), revision_of(*spec));
  }
  EXPECT_GT(accepted, 50);
  EXPECT_GT(refused, 50);
}

TEST(SpecFuzz, ABrokenTenantIsRefusedOrCanBePlanned) {
  const std::string good =
      R"({"namespaces": ["team-a", "team-b"], "owners": [{"kind": "Group", "name": "devs"}],
    "budget": {"models": 2, "resources": {"nvidia.com/gpu": 8, "memory": "64Gi"}},
    "allowed": {"models": ["pvc://weights/*"], "accelerators": ["cpu"]}, "priority": {"value": 5},
    "clients": {"namespaces": ["ingress"], "cidrs": ["10.0.0.0/8"]}, "keys": {"required": true}})";
  fuzz::Random random(2);
  int accepted = 0;
  int refused = 0;
  for (int i = 0; i < 8000; ++i) {
    const nlohmann::json json =
        nlohmann::json::parse(fuzz::mutate(good, random), nullptr, /*allow_exceptions=*/false);
    if (json.is_discarded()) continue;
    const Result<TenantSpec> spec = parse_tenant(json);
    if (!spec) {
      ++refused;
      EXPECT_EQ(spec.error().kind, ErrorKind::kInvalid);
      EXPECT_NE(spec.error().message.find("spec"), std::string::npos) << spec.error().message;
      continue;
    }
    ++accepted;
    EXPECT_FALSE(spec->namespaces.empty());
    for (const auto& [resource, quantity] : spec->budget.resources) {
      EXPECT_TRUE(milli_of(quantity).has_value()) << quantity;
    }
  }
  EXPECT_GT(accepted, 50);
  EXPECT_GT(refused, 50);
}

}  // namespace
}  // namespace dsm::api
