// Rollbacks by an annotation in a tenant's namespace.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "operator/api/names.h"
#include "operator/plan/children.h"
#include "operator/runtime/tenant_budgets.h"

namespace dsm::runtime {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

Json spec_of(const std::string& uri, int gpus) {
  return {{"model", {{"uri", uri}}},
          {"replicas", 2},
          {"template", {{"resources", {{"requests", {{"example.com/gpu", gpus}}}}}}}};
}

class TenantRollback : public testing::Test {
 protected:
  TenantRollback() {
    tenants_.tenants.put({{"metadata",
                           {{"name", "a"},
                            {"uid", "u-a"},
                            {"resourceVersion", "1"},
                            {"creationTimestamp", "2026-01-01T00:00:00Z"}}},
                          {"spec",
                           {{"namespaces", {"n"}},
                            {"allowed", {{"models", {"pvc://allowed/*"}}}},
                            {"budget", {{"resources", {{"example.com/gpu", "4"}}}}}}}});
  }
  std::string keep(const Json& spec, long number) {
    const auto parsed = api::parse_spec(spec);
    plan::Revision revision{api::revision_of(*parsed), *parsed, "i", number};
    Json object = plan::revision_json({"m", "n", "u-m"}, revision);
    object["metadata"]["resourceVersion"] = std::to_string(number);
    store_.revisions.put(object);
    return revision.name;
  }
  plan::TenantGrant grant(const Json& status, const Json& annotations) {
    const Json model = {{"metadata",
                         {{"name", "m"},
                          {"namespace", "n"},
                          {"uid", "u-m"},
                          {"resourceVersion", std::to_string(++version_)},
                          {"creationTimestamp", "2026-01-02T00:00:00Z"},
                          {"annotations", annotations}}},
                        {"spec", spec_of("pvc://allowed/new", 1)},
                        {"status", status}};
    store_.models.put(model);
    plan::TenantGrant granted;
    budgets_.plan("n/m", model, [&](std::optional<plan::TenantGrant> grant) {
      granted = std::move(grant).value();
      return plan::Plan{};
    });
    return granted;
  }

  Store store_;
  TenantStore tenants_;
  ManualClock clock_;
  TenantBudgets budgets_{store_, tenants_, clock_};
  int version_ = 100;
};

TEST_F(TenantRollback, says_which_revisions_the_tenant_does_not_allow_when_one_is_asked_for) {
  const std::string foreign = keep(spec_of("pvc://elsewhere/old", 1), 1);
  keep(spec_of("pvc://allowed/old", 1), 2);
  EXPECT_THAT(grant({}, Json::object()).revisions_not_allowed, IsEmpty());
  EXPECT_THAT(grant({}, {{std::string(api::kRollbackAnnotation), "x"}}).revisions_not_allowed,
              ElementsAre(foreign));
}

TEST_F(TenantRollback, there_must_be_room_for_what_is_gone_back_to) {
  const std::string large = keep(spec_of("pvc://allowed/large", 3), 1);
  EXPECT_EQ(grant({}, Json::object()).groups, 2);
  budgets_.forget("n/m");
  EXPECT_EQ(grant({{"rollback", {{"to", large}, {"active", true}}}}, Json::object()).groups, 1);
}

}  // namespace
}  // namespace dsm::runtime
