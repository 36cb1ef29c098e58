// A leader that has just begun gives nothing from a tenant's budget by what late watches say.
#include "operator/runtime/tenant_doubts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kube/testing/scripted_transport.h"
#include "operator/runtime/tenant_budgets.h"

namespace dsm::runtime {
namespace {

using kube::testing::json_answer;
using testing::ElementsAre;
using testing::IsEmpty;

Json tenant(const char* gpus, int version) {
  return {{"metadata",
           {{"name", "a"},
            {"uid", "u-a"},
            {"resourceVersion", std::to_string(version)},
            {"creationTimestamp", "2026-01-01T00:00:00Z"}}},
          {"spec",
           {{"namespaces", {"x", "y"}}, {"budget", {{"resources", {{"example.com/gpu", gpus}}}}}}}};
}

Json model(const std::string& ns, const std::string& name) {
  return {{"metadata",
           {{"name", name},
            {"namespace", ns},
            {"uid", "u-" + name},
            {"resourceVersion", "5"},
            {"creationTimestamp", "2026-01-02T00:00:00Z"}}},
          {"spec",
           {{"model", {{"uri", "image:///models/tiny"}}},
            {"template", {{"resources", {{"requests", {{"example.com/gpu", 1}}}}}}}}}};
}

Json pod(const std::string& ns, const std::string& name) {
  return {
      {"metadata",
       {{"name", name + "-abcd1234-0-0"},
        {"namespace", ns},
        {"uid", "u-pod"},
        {"resourceVersion", "7"},
        {"labels",
         {{"deepseek-operator.io/model", name},
          {"deepseek-operator.io/revision", "abcd1234"},
          {"deepseek-operator.io/group", "0"}}},
        {"ownerReferences", {{{"uid", "u-" + name}, {"controller", true}}}}}},
      {"spec", {{"containers", {{{"resources", {{"requests", {{"example.com/gpu", "2"}}}}}}}}}}};
}

class TenantDoubtsTest : public testing::Test {
 protected:
  TenantDoubtsTest() {
    transport_.on_request([this](const kube::HttpRequest& request) {
      const std::string path = request.target.substr(0, request.target.find('?'));
      return json_answer(200, {{"apiVersion", "v1"},
                               {"kind", "List"},
                               {"metadata", {{"resourceVersion", "10"}}},
                               {"items", there_.value(path, Json::array())}});
    });
    // As late watches have it: a larger budget, and no second model.
    tenants_.tenants.put(tenant("3", 1));
    store_.models.put(model("x", "mine"));
  }
  int groups_of_mine() {
    int groups = -1;
    budgets_.plan("x/mine", model("x", "mine"), [&](std::optional<plan::TenantGrant> grant) {
      groups = grant->groups;
      return plan::Plan{};
    });
    return groups;
  }
  std::size_t asked() const { return transport_.requests().size(); }

  Json there_ = Json::object();  // by path
  kube::testing::ScriptedTransport transport_;
  ManualClock clock_;
  kube::Client client_{transport_, clock_, {}};
  Store store_;
  TenantStore tenants_;
  TenantBudgets budgets_{store_, tenants_, clock_};
  std::vector<std::string> changed_;
  TenantDoubts doubts_{
      client_,
      store_,
      tenants_,
      {.model_changed = [this](const std::string& key) { changed_.push_back(key); },
       .tenant_changed = [this](const std::string& key) { changed_.push_back(key); },
       .pods_listed = [this](const std::vector<Json>& pods) { budgets_.learn(pods); }}};
};

constexpr const char* kTenants = "/apis/deepseek-operator.io/v1alpha1/deepseektenants";

TEST_F(TenantDoubtsTest, RoomThatAPodTookWhichNoWatchHasBroughtIsNotGivenAway) {
  there_[kTenants] = Json::array({tenant("2", 8)});
  there_["/apis/deepseek-operator.io/v1alpha1/namespaces/x/deepseekmodels"] =
      Json::array({model("x", "mine")});
  // Its model is gone, and so is its revision: it takes what it asks for.
  there_["/api/v1/namespaces/y/pods"] = Json::array({pod("y", "other")});
  doubts_.begin();
  ASSERT_TRUE(doubts_.settle("x"));
  EXPECT_EQ(groups_of_mine(), 0);
  EXPECT_THAT(changed_, ElementsAre("a", "y/other"));
}

TEST_F(TenantDoubtsTest, WhatIsCertainIsNotAskedForAgain) {
  there_[kTenants] = Json::array({tenant("2", 8)});
  ASSERT_TRUE(doubts_.settle("x"));
  const std::size_t all = asked();
  EXPECT_EQ(all, 7U) << "tenants, and three kinds in each of two namespaces";
  ASSERT_TRUE(doubts_.settle("y"));
  EXPECT_EQ(asked(), all);
  doubts_.doubt("y");
  ASSERT_TRUE(doubts_.settle("x"));
  EXPECT_EQ(asked(), all + 3);
  doubts_.begin();
  ASSERT_TRUE(doubts_.settle("x"));
  EXPECT_EQ(asked(), all + 3 + 7);
}

TEST_F(TenantDoubtsTest, ANamespaceOfNoTenantIsNotRead) {
  there_[kTenants] = Json::array({tenant("2", 8)});
  ASSERT_TRUE(doubts_.settle("z"));
  EXPECT_EQ(asked(), 1U);
}

TEST_F(TenantDoubtsTest, WhileTheApiServerDoesNotAnswerNothingIsCertain) {
  transport_.on_request(
      [](const kube::HttpRequest&) { return fail(ErrorKind::kTransient, "no answer"); });
  EXPECT_FALSE(doubts_.settle("x"));
  EXPECT_THAT(changed_, IsEmpty());
}

}  // namespace
}  // namespace dsm::runtime
