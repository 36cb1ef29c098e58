#include "ctl/tenant_grant.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ctl/testing/example.h"

namespace dsm::ctl {
namespace {

using nlohmann::json;
using testing::Example;
using ::testing::HasSubstr;
using testing::kNow;

// Of tenant a, with 3 CPUs; each pod of the example asks for a half.
class Grant : public ::testing::Test {
 protected:
  Grant() : example(spec()) {
    world.models = {example.model};
    world.pods = example.pods;
    world.revisions = example.revisions;
    say({{"namespaces", {"team-a", "team-b"}}, {"budget", {{"resources", {{"cpu", "3"}}}}}});
  }
  static json spec() {
    json out = testing::example_spec();
    out["template"]["resources"]["requests"]["cpu"] = "500m";
    return out;
  }
  void say(const json& tenant_spec) {
    world.tenant = std::make_shared<const plan::TenantView>(plan::tenant_view(
        {{"metadata", {{"name", "a"}, {"uid", "u"}, {"creationTimestamp", "2026-01-01T00:00:00Z"}}},
         {"spec", tenant_spec}}));
  }
  json scaled(int replicas) const {
    json model = example.model;
    model["spec"]["replicas"] = replicas;
    return model;
  }

  Example example;
  TenantWorld world;
};

TEST_F(Grant, what_runs_and_what_fits_beside_it_may_run) {
  EXPECT_EQ(grant_of(world, example.model, kNow).groups, 2);
  EXPECT_EQ(grant_of(world, example.model, kNow).waits_for, "");
  const auto more = grant_of(world, scaled(5), kNow);
  EXPECT_EQ(more.groups, 3);
  EXPECT_THAT(more.waits_for, HasSubstr("cpu"));
  EXPECT_THAT(more.waits_for, HasSubstr("tenant a"));
}

TEST_F(Grant, models_of_its_other_namespaces_count) {
  json other = example.model;
  other["metadata"]["namespace"] = "team-b";
  other["metadata"]["uid"] = "uid-other";
  world.models.push_back(other);
  for (json pod : example.pods) {
    if (pod["metadata"]["name"].get<std::string>().find("-0-") == std::string::npos) continue;
    pod["metadata"]["namespace"] = "team-b";
    world.pods.push_back(pod);
  }
  EXPECT_EQ(grant_of(world, scaled(5), kNow).groups, 2) << "the third CPU is taken";
}

TEST_F(Grant, a_model_that_is_new_is_the_last_to_be_served) {
  json fresh = example.model;
  fresh["metadata"] = {{"name", "r2"}, {"namespace", "team-b"}};
  fresh["spec"]["replicas"] = 2;
  const auto grant = grant_of(world, fresh, kNow);
  EXPECT_EQ(grant.groups, 1);
  EXPECT_THAT(grant.waits_for, HasSubstr("cpu"));
}

TEST_F(Grant, a_model_that_may_not_run_keeps_what_it_has) {
  say({{"namespaces", {"team-a"}}, {"allowed", {{"models", {"pvc://weights/*"}}}}});
  const auto grant = grant_of(world, scaled(5), kNow);
  EXPECT_THAT(grant.not_allowed, HasSubstr("spec.model.uri: image:///models/deepseek-tiny is not"));
  EXPECT_EQ(grant.groups, 2);
}

TEST_F(Grant, keys_and_priority_are_the_tenants) {
  say({{"namespaces", {"team-a"}}, {"priority", {{"className", "high"}}}});
  const auto grant = grant_of(world, example.model, kNow);
  EXPECT_EQ(grant.priority_class, "high");
  EXPECT_TRUE(grant.keys_required);
}

}  // namespace
}  // namespace dsm::ctl
