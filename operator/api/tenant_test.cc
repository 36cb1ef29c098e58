#include "operator/api/tenant.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "operator/api/quantity.h"
#include "operator/api/tenant_status.h"

namespace dsm::api {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

json minimal() {
  return {{"namespaces", {"team-a"}}};
}

std::string mistake(const json& patch) {
  json spec = minimal();
  spec.merge_patch(patch);
  const auto parsed = parse_tenant(spec);
  return parsed ? "parsed" : parsed.error().message;
}

TEST(Tenant, a_namespace_is_enough_and_keys_are_needed_unless_said_otherwise) {
  const auto spec = parse_tenant(minimal());
  ASSERT_TRUE(spec) << spec.error().message;
  EXPECT_THAT(spec->namespaces, ElementsAre("team-a"));
  EXPECT_TRUE(spec->keys_required);
  EXPECT_FALSE(spec->budget.models);
  EXPECT_TRUE(spec->allowed.models.empty());
}

TEST(Tenant, every_field_is_read) {
  const json full = {
      {"namespaces", {"team-a", "team-a-dev"}},
      {"owners",
       {{{"name", "alice"}},
        {{"kind", "ServiceAccount"}, {"name", "ci"}, {"namespace", "team-a"}}}},
      {"budget", {{"models", 2}, {"resources", {{"nvidia.com/gpu", 8}, {"memory", "64Gi"}}}}},
      {"allowed", {{"models", {"pvc://weights/*"}}, {"accelerators", {"cpu"}}}},
      {"priority", {{"value", 100}}},
      {"clients", {{"namespaces", {"ingress"}}, {"cidrs", {"10.0.0.0/8", "fd00::/8"}}}},
      {"keys", {{"required", false}}}};
  const auto spec = parse_tenant(full);
  ASSERT_TRUE(spec) << spec.error().message;
  EXPECT_EQ(spec->owners.at(0).kind, "User");
  EXPECT_EQ(spec->owners.at(1).ns, "team-a");
  EXPECT_EQ(spec->budget.models, 2);
  EXPECT_EQ(spec->budget.resources.at("nvidia.com/gpu"), "8");
  EXPECT_THAT(spec->allowed.models, ElementsAre("pvc://weights/*"));
  EXPECT_EQ(spec->priority.value, 100);
  EXPECT_THAT(spec->clients.cidrs, ElementsAre("10.0.0.0/8", "fd00::/8"));
  EXPECT_FALSE(spec->keys_required);
}

TEST(Tenant, a_mistake_names_the_field_and_the_remedy) {
  EXPECT_THAT(mistake({{"namespaces", json::array()}}), HasSubstr("spec.namespaces: is empty"));
  EXPECT_THAT(mistake({{"namespaces", {"kube-system"}}}),
              HasSubstr("spec.namespaces[0]: is \"kube-system\""));
  EXPECT_THAT(mistake({{"namespaces", {"a", "a"}}}), HasSubstr("twice"));
  EXPECT_THAT(mistake({{"namespaces", {"a", 5}}}), HasSubstr("spec.namespaces[1]"));
  EXPECT_THAT(mistake({{"owners", {{{"kind", "Robot"}, {"name", "x"}}}}}),
              HasSubstr("spec.owners[0].kind"));
  EXPECT_THAT(mistake({{"owners", {{{"kind", "ServiceAccount"}, {"name", "x"}}}}}),
              HasSubstr("needs the namespace"));
  EXPECT_THAT(mistake({{"owners", {{{"name", "x"}, {"namespace", "y"}}}}}),
              HasSubstr("is in no namespace"));
  EXPECT_THAT(mistake({{"budget", {{"resources", {{"cpu", "many"}}}}}}),
              HasSubstr("spec.budget.resources[cpu]"));
  EXPECT_THAT(mistake({{"allowed", {{"models", {"ftp://x"}}}}}),
              HasSubstr("spec.allowed.models[0]"));
  EXPECT_THAT(mistake({{"allowed", {{"models", {"pvc://*/x"}}}}}),
              HasSubstr("spec.allowed.models[0]"));
  EXPECT_THAT(mistake({{"clients", {{"cidrs", {"10.0.0.0/33"}}}}}),
              HasSubstr("spec.clients.cidrs[0]"));
  EXPECT_THAT(mistake({{"clients", {{"cidrs", {"10.0.0.0"}}}}}),
              HasSubstr("spec.clients.cidrs[0]"));
  EXPECT_THAT(mistake({{"priority", {{"className", "x"}, {"value", 1}}}}),
              HasSubstr("spec.priority: has className and value"));
  EXPECT_THAT(mistake({{"quota", 1}}), HasSubstr("spec.quota: is not a field"));
}

TEST(Tenant, a_pattern_is_a_text_or_its_beginning) {
  const std::vector<std::string> patterns = {"image:///models/tiny", "pvc://weights/*"};
  EXPECT_TRUE(matches_any(patterns, "image:///models/tiny"));
  EXPECT_FALSE(matches_any(patterns, "image:///models/tiny2"));
  EXPECT_TRUE(matches_any(patterns, "pvc://weights/r1"));
  EXPECT_FALSE(matches_any(patterns, "pvc://weights2/r1"));
  EXPECT_FALSE(matches_any({}, "pvc://weights/r1"));
}

TEST(Tenant, a_status_survives_json) {
  TenantStatus status;
  status.observed_generation = 3;
  status.namespaces = "1/2";
  status.models = 4;
  status.waiting_models = 1;
  status.used = {{"cpu", "1500m"}};
  status.conditions.push_back({"Ready", Truth::kTrue, 3, "2026-01-01T00:00:00Z", "R", "m"});
  const json first = to_json(status);
  EXPECT_EQ(to_json(parse_tenant_status(first)), first);
  EXPECT_EQ(to_json(parse_tenant_status({{"models", "x"}, {"conditions", 3}})),
            to_json(TenantStatus{}));
}

TEST(Quantity, units_become_thousandths_and_back) {
  EXPECT_EQ(milli_of("2"), 2000);
  EXPECT_EQ(milli_of("500m"), 500);
  EXPECT_EQ(milli_of("1.1"), 1100);
  EXPECT_EQ(milli_of("64Gi"), 64.0 * 1024 * 1024 * 1024 * 1000);
  EXPECT_EQ(milli_of("1u"), 1) << "what is finer is rounded up";
  for (const char* wrong : {"", "x", "-1", "1.5.2", "nan", "inf", "1 Gi", "1e3"}) {
    EXPECT_FALSE(milli_of(wrong)) << wrong;
  }
  EXPECT_EQ(quantity_text("cpu", 1500), "1500m");
  EXPECT_EQ(quantity_text("cpu", 2048000), "2048");
  EXPECT_EQ(quantity_text("memory", *milli_of("3072Mi")), "3Gi");
  EXPECT_EQ(quantity_text("memory", 0), "0");
  EXPECT_TRUE(same_quantity("1000m", "1"));
  EXPECT_TRUE(same_quantity("1024Mi", "1Gi"));
  EXPECT_FALSE(same_quantity("1G", "1Gi"));
  EXPECT_FALSE(same_quantity("x", "x"));
}

}  // namespace
}  // namespace dsm::api
