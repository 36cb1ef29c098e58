// What a model's plan makes of its tenant's word.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "operator/api/status.h"
#include "operator/plan/children.h"
#include "operator/plan/plan.h"

namespace dsm::plan {
namespace {

using nlohmann::json;
using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

// A model that wants two groups of one pod, seen for the second time, with its children there.
class Granted : public testing::Test {
 protected:
  Granted() {
    const json spec = {{"model", {{"uri", "image:///models/tiny"}}}, {"replicas", 2}};
    const auto parsed = api::parse_spec(spec);
    const Owner owner{"m", "ns", "uid-m"};
    seen.model = {
        {"metadata", {{"name", "m"}, {"namespace", "ns"}, {"uid", owner.uid}, {"generation", 1}}},
        {"spec", spec}};
    seen.now = from_rfc3339("2026-01-01T00:00:00Z");
    seen.config.worker_image = "worker:1";
    seen.children = {serving_service_json(owner, false), ranks_service_json(owner),
                     token_secret_json(owner, "t"),
                     revision_json(owner, {api::revision_of(*parsed), *parsed, "worker:1", 1})};
    seen.model["status"] = *plan(seen).status;
    seen.tenant = TenantGrant{.not_allowed = "",
                              .groups = 2,
                              .waits_for = "",
                              .priority_class = "",
                              .keys_required = true};
  }
  static std::string reason(const Plan& plan, std::string_view type) {
    const auto status = api::parse_status(plan.status.value_or(json()));
    const auto* condition = api::find_condition(status, type);
    return condition == nullptr ? "" : condition->reason + ": " + condition->message;
  }
  static std::vector<std::string> args(const json& pod) {
    return pod["spec"]["containers"][0]["args"];
  }

  Observed seen;
};

TEST_F(Granted, within_the_budget_every_group_is_made) {
  EXPECT_THAT(plan(seen).create_pods, SizeIs(2));
}

TEST_F(Granted, beyond_the_budget_only_what_is_granted_is_made_and_the_rest_is_said) {
  seen.tenant->groups = 1;
  seen.tenant->waits_for = "tenant a's budget of 4 nvidia.com/gpu is used up";
  const Plan one = plan(seen);
  EXPECT_THAT(one.create_pods, SizeIs(1));
  EXPECT_EQ(reason(one, api::kReady), "QuotaExceeded: " + seen.tenant->waits_for);
  EXPECT_EQ(reason(one, api::kDegraded), "QuotaExceeded: " + seen.tenant->waits_for);
  EXPECT_EQ((*one.status)["ready"], "0/2");
  seen.tenant->groups = 0;
  EXPECT_THAT(plan(seen).create_pods, IsEmpty());
}

TEST_F(Granted, what_is_not_allowed_begins_nothing) {
  seen.tenant->not_allowed = "spec.model.uri: image:///models/tiny is not among the models of a";
  seen.tenant->groups = 0;  // it was never granted one
  const Plan none = plan(seen);
  EXPECT_THAT(none.create_pods, IsEmpty());
  EXPECT_EQ(reason(none, api::kReady), "NotAllowed: " + seen.tenant->not_allowed);
  EXPECT_EQ(reason(none, api::kStalled), "NotAllowed: " + seen.tenant->not_allowed);
  EXPECT_THAT(reason(none, api::kProgressing), HasSubstr("NotAllowed"));
}

TEST_F(Granted, pods_wait_for_their_keys_and_have_the_tenants_priority) {
  seen.tenant->priority_class = "deepseek-tenant-a";
  for (const json& pod : plan(seen).create_pods) {
    EXPECT_THAT(args(pod), Contains("--await-keys=true"));
    EXPECT_EQ(pod["spec"]["priorityClassName"], "deepseek-tenant-a");
  }
  seen.tenant->keys_required = false;
  seen.tenant->priority_class.clear();
  for (const json& pod : plan(seen).create_pods) {
    EXPECT_THAT(args(pod), Not(Contains("--await-keys=true")));
    EXPECT_FALSE(pod["spec"].contains("priorityClassName"));
  }
}

}  // namespace
}  // namespace dsm::plan
