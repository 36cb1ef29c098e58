// What two models' looks at the same time are told of the room in their tenant's budget.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "operator/plan/children.h"
#include "operator/runtime/tenant_budgets.h"

namespace dsm::runtime {
namespace {

constexpr const char* kGpu = "example.com/gpu";

Json model(const std::string& name, int replicas, const std::string& day) {
  return {{"metadata",
           {{"name", name},
            {"namespace", "x"},
            {"uid", "u-" + name},
            {"resourceVersion", "5"},
            {"creationTimestamp", "2026-01-" + day + "T00:00:00Z"}}},
          {"spec",
           {{"model", {{"uri", "image:///models/tiny"}}},
            {"replicas", replicas},
            {"template", {{"resources", {{"requests", {{kGpu, 1}}}}}}}}}};
}

class TenantRoom : public testing::Test {
 protected:
  TenantRoom() {
    tenants_.tenants.put(
        {{"metadata",
          {{"name", "a"},
           {"uid", "u-a"},
           {"resourceVersion", "1"},
           {"creationTimestamp", "2026-01-01T00:00:00Z"}}},
         {"spec", {{"namespaces", {"x"}}, {"budget", {{"resources", {{kGpu, 3}}}}}}}});
  }
  static Json pod(const std::string& name, int group) {
    return {{"metadata",
             {{"name", name + "-abcd1234-" + std::to_string(group) + "-0"},
              {"namespace", "x"},
              {"uid", "u" + std::to_string(group)},
              {"resourceVersion", std::to_string(100 + group)},
              {"labels",
               {{"deepseek-operator.io/model", name},
                {"deepseek-operator.io/revision", "abcd1234"},
                {"deepseek-operator.io/group", std::to_string(group)}}},
              {"ownerReferences", {{{"uid", "u-" + name}, {"controller", true}}}}}}};
  }
  // A look that plans to make these groups.
  plan::TenantGrant look(const Json& object, const std::vector<int>& begins,
                         bool lacks_room = false) {
    const std::string name = object["metadata"]["name"];
    store_.models.put(object);
    plan::TenantGrant granted;
    budgets_.plan("x/" + name, object, [&](std::optional<plan::TenantGrant> grant) {
      granted = *std::move(grant);
      plan::Plan plan;
      for (const int group : begins) plan.create_pods.push_back(pod(name, group));
      plan.lacks_room = lacks_room;
      return plan;
    });
    return granted;
  }
  static double room(const plan::TenantGrant& grant) { return grant.room.at(kGpu) / 1000; }

  Store store_;
  TenantStore tenants_;
  ManualClock clock_;
  TenantBudgets budgets_{store_, tenants_, clock_};
};

TEST_F(TenantRoom, AGroupThatIsBegunCountsBeforeAnybodyHasSeenItsPods) {
  const Json first = model("first", 1, "02");
  EXPECT_EQ(room(look(first, {0, 1})), 3) << "one of the two is more than it was granted";
  EXPECT_EQ(room(look(model("second", 1, "03"), {})), 1);
  // The next look at the first one knows what became of them: one was refused.
  store_.pods.put(pod("first", 0));
  look(first, {});
  EXPECT_EQ(room(look(model("second", 1, "03"), {})), 2);
}

TEST_F(TenantRoom, WhoLeadsAgainTakesNothingFromAModelThatAnotherOneHasGrantedMore) {
  const Json one = model("one", 0, "02");
  EXPECT_EQ(look(one, {}).groups, 0);
  Json more = model("one", 3, "02");
  more["metadata"]["resourceVersion"] = "6";
  for (const int group : {0, 1, 2}) store_.pods.put(pod("one", group));
  budgets_.begin();
  EXPECT_EQ(look(more, {}).groups, 3);
}

TEST_F(TenantRoom, HowLongThereIsNoneIsRememberedUntilThereIsSome) {
  const Json one = model("one", 1, "02");
  EXPECT_FALSE(look(one, {}, true).no_room_since);
  const WallTime since = clock_.wall_now();
  clock_.advance(Seconds(20));
  EXPECT_EQ(look(one, {}, true).no_room_since, since);
  EXPECT_EQ(look(one, {}, false).no_room_since, since);
  EXPECT_FALSE(look(one, {}, false).no_room_since);
}

TEST_F(TenantRoom, AGroupThatIsToEndOnALostNodeTakesNone) {
  Json lost = pod("one", 0);
  lost["spec"] = {{"nodeName", "n"}};
  lost["metadata"]["deletionTimestamp"] = to_rfc3339(clock_.wall_now() + Seconds(30));
  store_.pods.put(lost);
  const Json one = model("one", 1, "02");
  EXPECT_EQ(room(look(one, {})), 2);
  store_.nodes.put({{"metadata", {{"name", "n"}, {"resourceVersion", "1"}}},
                    {"status", {{"conditions", {{{"type", "Ready"}, {"status", "Unknown"}}}}}}});
  EXPECT_EQ(room(look(one, {})), 3);
}

}  // namespace
}  // namespace dsm::runtime
