// The simulated API server behaves as the real one where the operator relies on it.
#include "operator/faults/api_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kube/client.h"
#include "operator/faults/fault_source.h"
#include "operator/faults/wire.h"

namespace dsm::faults {
namespace {

using ::testing::ElementsAre;

class ApiServerTest : public ::testing::Test {
 protected:
  Json object(const kube::Resource& resource, const std::string& name) {
    return {{"apiVersion", resource.api_version()},
            {"kind", resource.kind},
            {"metadata", {{"name", name}, {"namespace", "ns"}, {"labels", {{"app", name}}}}}};
  }
  Json pod(const std::string& name) {
    Json pod = object(kube::kPods, name);
    pod["spec"] = {{"terminationGracePeriodSeconds", 30},
                   {"containers", {{{"image", "i"}, {"args", {"--tensor-parallel", "1"}}}}}};
    return pod;
  }
  std::vector<std::string> types(const kube::Resource& resource) {
    std::vector<std::string> result;
    for (const auto& event : server_.objects().events(resource)) {
      result.push_back(Json::parse(event.line)["type"]);
    }
    return result;
  }
  static std::string uid(const Json& object) { return object["metadata"]["uid"]; }

  ManualClock clock_;
  ApiServer server_{clock_};
  OneFault none_;
  Wire wire_{server_, none_, {[] { return true; }, [](Millis) {}, [] {}, [](const auto&, bool) {}}};
  kube::Client client_{wire_, clock_, {}};
};

TEST_F(ApiServerTest, ANameIsTakenOnceAndAListHasWhatTheSelectorSays) {
  ASSERT_TRUE(client_.create(kube::kServices, "ns", object(kube::kServices, "a")));
  ASSERT_TRUE(client_.create(kube::kServices, "ns", object(kube::kServices, "b")));
  const auto again = client_.create(kube::kServices, "ns", object(kube::kServices, "a"));
  ASSERT_FALSE(again);
  EXPECT_TRUE(again.error().already_exists());
  kube::ListOptions some;
  some.label_selector = "app=b";
  const auto list = client_.list(kube::kServices, "ns", some);
  ASSERT_TRUE(list);
  ASSERT_EQ(list->items.size(), 1U);
  EXPECT_EQ(key_of(list->items[0]), "ns/b");
}

TEST_F(ApiServerTest, APutOfAnOldStateIsAConflict) {
  const auto made = client_.create(kube::kLeases, "ns", object(kube::kLeases, "l"));
  ASSERT_TRUE(made);
  Json mine = *made;
  mine["spec"] = {{"holderIdentity", "a"}};
  ASSERT_TRUE(client_.replace(kube::kLeases, "ns", "l", mine));
  mine["spec"] = {{"holderIdentity", "b"}};
  const auto late = client_.replace(kube::kLeases, "ns", "l", mine);
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().kind, ErrorKind::kConflict);
}

TEST_F(ApiServerTest, AnApplyTakesAwayWhatItSaidBeforeAndOneThatSaysNothingNewIsNoEvent) {
  const auto made = client_.create(kube::kServices, "ns", object(kube::kServices, "s"));
  ASSERT_TRUE(made);
  Json wanted = object(kube::kServices, "s");
  wanted["spec"] = {{"a", 1}, {"b", 2}};
  ASSERT_TRUE(client_.apply(kube::kServices, "ns", "s", wanted));
  wanted["spec"] = {{"a", 1}};
  const auto applied = client_.apply(kube::kServices, "ns", "s", wanted);
  ASSERT_TRUE(applied);
  EXPECT_EQ((*applied)["spec"], Json({{"a", 1}}));
  ASSERT_TRUE(client_.apply(kube::kServices, "ns", "s", wanted));
  EXPECT_THAT(types(kube::kServices), ElementsAre("ADDED", "MODIFIED", "MODIFIED"));
  wanted["metadata"]["uid"] = "another";
  EXPECT_EQ(client_.apply(kube::kServices, "ns", "s", wanted).error().kind, ErrorKind::kConflict);
}

TEST_F(ApiServerTest, APodEndsWithItsGracePeriodAndAtOnceWithoutANode) {
  const auto first = client_.create(kube::kPods, "ns", pod("first"));
  ASSERT_TRUE(first);
  kube::DeleteOptions options;
  options.uid = "another";
  EXPECT_EQ(client_.remove(kube::kPods, "ns", "first", options).error().kind, ErrorKind::kConflict);
  options.uid = uid(*first);
  ASSERT_TRUE(client_.remove(kube::kPods, "ns", "first", options));
  EXPECT_EQ(server_.objects().find(kube::kPods, "ns/first"), nullptr);

  const auto second = client_.create(kube::kPods, "ns", pod("second"));
  server_.pass_second();  // it has a node
  options.uid = uid(*second);
  const auto going = client_.remove(kube::kPods, "ns", "second", options);
  ASSERT_TRUE(going);
  EXPECT_TRUE((*going)["metadata"].contains("deletionTimestamp"));
  ASSERT_NE(server_.objects().find(kube::kPods, "ns/second"), nullptr);
  for (int i = 0; i < 5; ++i) server_.pass_second();
  EXPECT_EQ(server_.objects().find(kube::kPods, "ns/second"), nullptr);
}

TEST_F(ApiServerTest, WhatBelongsToAModelGoesWithItAndInTheForegroundBeforeIt) {
  server_.make_model("ns", "m", {{"replicas", 1}});
  const std::string model = uid(*server_.objects().find(kube::kDeepSeekModels, "ns/m"));
  Json child = object(kube::kServices, "child");
  child["metadata"]["ownerReferences"] = {{{"uid", model}, {"controller", true}}};
  ASSERT_TRUE(client_.create(kube::kServices, "ns", child));
  server_.pass_second();
  EXPECT_NE(server_.objects().find(kube::kServices, "ns/child"), nullptr);
  server_.delete_model("ns/m", /*foreground=*/true);
  EXPECT_NE(server_.objects().find(kube::kDeepSeekModels, "ns/m"), nullptr);
  server_.pass_second();
  EXPECT_EQ(server_.objects().find(kube::kServices, "ns/child"), nullptr);
  server_.pass_second();
  EXPECT_EQ(server_.objects().find(kube::kDeepSeekModels, "ns/m"), nullptr);
}

TEST_F(ApiServerTest, AnEditOfTheSpecIsAGenerationAndAStatusIsNone) {
  server_.make_model("ns", "m", {{"replicas", 1}});
  server_.edit_model("ns/m", {{"replicas", 2}});
  server_.edit_model("ns/m", {{"replicas", 2}});
  Json status = object(kube::kDeepSeekModels, "m");
  status["status"] = {{"replicas", 2}};
  ASSERT_TRUE(client_.apply_status(kube::kDeepSeekModels, "ns", "m", status));
  const Json& model = *server_.objects().find(kube::kDeepSeekModels, "ns/m");
  EXPECT_EQ(model["metadata"]["generation"], 2);
  EXPECT_EQ(model["status"]["replicas"], 2);
  EXPECT_THAT(types(kube::kDeepSeekModels), ElementsAre("ADDED", "MODIFIED", "MODIFIED"));
}

TEST_F(ApiServerTest, AQuotaLetsNoMorePodsIn) {
  server_.quota = 1;
  ASSERT_TRUE(client_.create(kube::kPods, "ns", pod("first")));
  EXPECT_EQ(client_.create(kube::kPods, "ns", pod("second")).error().kind, ErrorKind::kDenied);
}

}  // namespace
}  // namespace dsm::faults
