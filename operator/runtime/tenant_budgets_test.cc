#include "operator/runtime/tenant_budgets.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "operator/plan/children.h"

namespace dsm::runtime {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

Json tenant(const Json& spec) {
  return {{"metadata",
           {{"name", "a"},
            {"uid", "u-a"},
            {"resourceVersion", "1"},
            {"creationTimestamp", "2026-01-01T00:00:00Z"}}},
          {"spec", spec}};
}

Json model(const std::string& ns, const std::string& name, int replicas, const std::string& day) {
  return {{"metadata",
           {{"name", name},
            {"namespace", ns},
            {"uid", "u-" + name},
            {"resourceVersion", "5"},
            {"creationTimestamp", "2026-01-" + day + "T00:00:00Z"}}},
          {"spec",
           {{"model", {{"uri", "image:///models/tiny"}}},
            {"replicas", replicas},
            {"template", {{"resources", {{"requests", {{"example.com/gpu", 1}}}}}}}}}};
}

class TenantBudgetsTest : public testing::Test {
 protected:
  std::optional<plan::TenantGrant> grant(const Json& object) {
    store_.models.put(object);
    const Json& metadata = object["metadata"];
    std::optional<plan::TenantGrant> granted;
    budgets_.plan(
        metadata["namespace"].get<std::string>() + "/" + metadata["name"].get<std::string>(),
        object, [&](std::optional<plan::TenantGrant> grant) {
          granted = std::move(grant);
          return plan::Plan{};
        });
    return granted;
  }

  Store store_;
  TenantStore tenants_;
  // Pods of a group of that revision.
  void run(const std::string& ns, const std::string& name, const std::string& revision, int group) {
    store_.pods.put({{"metadata",
                      {{"name", name + "-" + revision + "-" + std::to_string(group)},
                       {"namespace", ns},
                       {"uid", revision + std::to_string(group)},
                       {"resourceVersion", std::to_string(++version_)},
                       {"labels",
                        {{"deepseek-operator.io/model", name},
                         {"deepseek-operator.io/revision", revision},
                         {"deepseek-operator.io/group", std::to_string(group)}}},
                       {"ownerReferences", {{{"uid", "u-" + name}, {"controller", true}}}}}}});
  }
  // The model's revision, with so many GPUs for a group.
  void revision(const std::string& ns, const std::string& name, int gpus, std::string* hash) {
    Json spec = model(ns, name, 1, "01")["spec"];
    spec["template"]["resources"]["requests"]["example.com/gpu"] = gpus;
    const auto parsed = api::parse_spec(spec);
    *hash = api::revision_of(*parsed);
    Json object = plan::revision_json({name, ns, "u-" + name}, {*hash, *parsed, "worker:1", 1});
    object["metadata"]["resourceVersion"] = std::to_string(++version_);
    store_.revisions.put(std::move(object));
  }
  std::string used() {
    return budgets_.account(*tenants_.find("a")).usage.resources.at("example.com/gpu");
  }

  int version_ = 100;
  ManualClock clock_;
  TenantBudgets budgets_{store_, tenants_, clock_};
};

TEST_F(TenantBudgetsTest, AModelOfNoTenantHasNoGrant) {
  tenants_.tenants.put(tenant({{"namespaces", {"x"}}}));
  EXPECT_FALSE(grant(model("y", "m", 1, "01")));
  EXPECT_TRUE(grant(model("x", "m", 1, "01")));
}

TEST_F(TenantBudgetsTest, TheBudgetCountsOverAllNamespacesAndARoomIsGivenOnce) {
  tenants_.tenants.put(
      tenant({{"namespaces", {"x", "y"}}, {"budget", {{"resources", {{"example.com/gpu", 3}}}}}}));
  // The younger one asks first, before anybody knows of the older.
  EXPECT_EQ(grant(model("y", "young", 2, "09"))->groups, 2);
  const auto old = grant(model("x", "old", 2, "02"));
  EXPECT_EQ(old->groups, 1) << "what was granted is reserved, though no pod is there yet";
  EXPECT_THAT(old->waits_for, HasSubstr("1 of 2 groups"));
  EXPECT_THAT(budgets_.account(*tenants_.find("a")).may_grow, IsEmpty());
  EXPECT_EQ(budgets_.account(*tenants_.find("a")).usage.waiting, 1);
  EXPECT_EQ(budgets_.account(*tenants_.find("a")).usage.resources.at("example.com/gpu"), "3");

  store_.models.erase("y/young", "u-young");
  budgets_.forget("y/young");
  EXPECT_THAT(budgets_.account(*tenants_.find("a")).may_grow, ElementsAre("x/old"));
  EXPECT_EQ(grant(model("x", "old", 2, "02"))->groups, 2);
  EXPECT_THAT(budgets_.account(*tenants_.find("a")).may_grow, IsEmpty());
}

TEST_F(TenantBudgetsTest, GroupsCountWithWhatTheirOwnRevisionTakes) {
  tenants_.tenants.put(
      tenant({{"namespaces", {"x"}}, {"budget", {{"resources", {{"example.com/gpu", 10}}}}}}));
  std::string large;
  revision("x", "m", 4, &large);
  run("x", "m", large, 0);
  run("x", "m", large, 1);
  // The spec says 1 now, and the groups of before are there still.
  EXPECT_EQ(grant(model("x", "m", 2, "01"))->groups, 2);
  EXPECT_EQ(used(), "8");
  EXPECT_EQ(grant(model("x", "other", 5, "02"))->groups, 2);
}

TEST_F(TenantBudgetsTest, PodsOfModelsThatAreWrongOrGoOrAreGoneTakeTheirRoom) {
  tenants_.tenants.put(
      tenant({{"namespaces", {"x"}}, {"budget", {{"resources", {{"example.com/gpu", 10}}}}}}));
  std::string hash;
  revision("x", "m", 4, &hash);
  run("x", "m", hash, 0);
  Json object = model("x", "m", 1, "01");
  grant(object);
  EXPECT_EQ(used(), "4");
  object["metadata"]["resourceVersion"] = "6";
  object["spec"] = {{"replicas", "many"}};
  store_.models.put(object);
  EXPECT_EQ(used(), "4") << "its spec is wrong";
  object["metadata"]["resourceVersion"] = "7";
  object["metadata"]["deletionTimestamp"] = "2026-01-02T00:00:00Z";
  store_.models.put(object);
  EXPECT_EQ(used(), "4") << "it is being deleted";
  store_.models.erase("x/m", "u-m");
  store_.revisions.erase("x/m-" + hash, "");
  budgets_.forget("x/m");
  EXPECT_EQ(used(), "4") << "it is gone, and its pod drains";
  store_.pods.erase("x/m-" + hash + "-0", hash + "0");
  EXPECT_EQ(used(), "0");
}

TEST_F(TenantBudgetsTest, TheBoundsOfScalingSayWhatIsWanted) {
  tenants_.tenants.put(
      tenant({{"namespaces", {"x"}}, {"budget", {{"resources", {{"example.com/gpu", 4}}}}}}));
  Json object = model("x", "m", 1, "01");
  object["spec"]["scaling"] = {{"minReplicas", 3}, {"maxReplicas", 6}};
  const auto granted = grant(object);
  EXPECT_EQ(granted->groups, 3);
  EXPECT_THAT(granted->waits_for, IsEmpty());
}

TEST_F(TenantBudgetsTest, WhatIsNotAllowedTakesNoRoom) {
  tenants_.tenants.put(tenant({{"namespaces", {"x"}},
                               {"budget", {{"models", 1}}},
                               {"allowed", {{"models", {"pvc://weights/*"}}}}}));
  const auto refused = grant(model("x", "a", 1, "01"));
  EXPECT_THAT(refused->not_allowed, HasSubstr("spec.model.uri"));
  Json good = model("x", "b", 1, "02");
  good["spec"]["model"]["uri"] = "pvc://weights/r1";
  EXPECT_EQ(grant(good)->groups, 1);
}

TEST_F(TenantBudgetsTest, AModelWhoseSpecCannotBeTakenKeepsWhatItWasGranted) {
  tenants_.tenants.put(
      tenant({{"namespaces", {"x"}}, {"budget", {{"resources", {{"example.com/gpu", 2}}}}}}));
  Json object = model("x", "m", 3, "01");
  EXPECT_EQ(grant(object)->groups, 2);
  object["metadata"]["resourceVersion"] = "6";
  object["spec"]["parallelism"] = {{"tensor", 3}};
  EXPECT_EQ(grant(object)->groups, 2) << "one of them may have been lost just now";
  // An operator that has just started knows only what is there.
  budgets_.forget("x/m");
  EXPECT_EQ(grant(object)->groups, 0);
  budgets_.forget("x/m");
  run("x", "m", "abcd1234", 0);
  EXPECT_EQ(grant(object)->groups, 1);
  run("x", "m", "abcd1234", 1);
  EXPECT_EQ(grant(object)->groups, 1) << "one more for a while is not counted";
  // What the tenant does not allow any more is kept in the same way.
  Json strict = tenant({{"namespaces", {"x"}}, {"allowed", {{"models", {"pvc://*"}}}}});
  strict["metadata"]["resourceVersion"] = "2";
  tenants_.tenants.put(strict);
  object["spec"].erase("parallelism");
  object["metadata"]["resourceVersion"] = "7";
  const auto left = grant(object);
  EXPECT_THAT(left->not_allowed, HasSubstr("spec.model.uri"));
  EXPECT_EQ(left->groups, 1);
}

TEST_F(TenantBudgetsTest, ATenantWhoseSpecIsWrongLetsNothingBeginAndKeepsItsKeys) {
  tenants_.tenants.put(tenant({{"namespaces", {"x"}}, {"owners", 5}}));
  const auto refused = grant(model("x", "a", 1, "01"));
  EXPECT_THAT(refused->not_allowed, HasSubstr("spec of tenant a is wrong"));
  EXPECT_TRUE(refused->keys_required);
}

TEST(TenantStore, KeysAreKeptAsHashesAlone) {
  TenantStore store;
  store.keys.put(
      {{"metadata", {{"name", "deepseek-api-keys"}, {"namespace", "x"}, {"resourceVersion", "1"}}},
       {"data", {{"alice", "c2stMDEyMzQ1Njc4OWFiY2RlZg=="}}}});
  const auto keys = store.keys.find("x/deepseek-api-keys");
  ASSERT_TRUE(keys);
  EXPECT_EQ(keys->hashes.at("alice").size(), 64u);
  EXPECT_THAT(keys->mistakes, IsEmpty());
}

}  // namespace
}  // namespace dsm::runtime
