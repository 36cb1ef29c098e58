#include "operator/runtime/model_doubts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>

#include "kube/testing/scripted_transport.h"
#include "operator/api/names.h"

namespace dsm::runtime {
namespace {

using kube::testing::json_answer;
using kube::testing::status_answer;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

constexpr const char* kModels = "/apis/deepseek-operator.io/v1alpha1/deepseekmodels?";
constexpr const char* kRevisions = "/apis/apps/v1/controllerrevisions?";
constexpr const char* kPods = "/api/v1/pods?";

Json model(const std::string& name, int generation = 1) {
  return {{"metadata",
           {{"name", name},
            {"namespace", "ns"},
            {"uid", "u-" + name},
            {"generation", generation},
            {"resourceVersion", "50"}}},
          {"status", {{"observedGeneration", 1}}}};
}

Json pod_of(const std::string& name, int group) {
  return {{"metadata",
           {{"name", name + "-r1-" + std::to_string(group) + "-0"},
            {"namespace", "ns"},
            {"uid", "u-pod"},
            {"resourceVersion", "50"},
            {"labels",
             {{std::string(api::kModelLabel), name},
              {std::string(api::kRevisionLabel), "r1"},
              {std::string(api::kGroupLabel), std::to_string(group)},
              {std::string(api::kPodIndexLabel), "0"}}}}}};
}

class ModelDoubtsTest : public ::testing::Test {
 protected:
  ModelDoubtsTest() {
    const std::vector<Json> models = {model("a"), model("b"), model("c", 2)};
    take(store_.models, models);
    take(store_.pods, {pod_of("a", 0), pod_of("a", 1), pod_of("b", 0)});
    take(store_.revisions, {});
    there_["deepseekmodels"] = models;
    there_["pods"] = {pod_of("a", 0), pod_of("b", 0)};
    transport_.on_request([this](const kube::HttpRequest& request) { return answer(request); });
  }

  template <typename Cache>
  static void take(Cache& cache, const std::vector<Json>& objects) {
    using Kind = kube::WatchEvent::Kind;
    std::vector<kube::WatchEvent> events = {{Kind::kInit, nullptr}};
    for (const Json& one : objects) events.push_back({Kind::kInitApply, one});
    events.push_back({Kind::kInitDone, {{"metadata", {{"resourceVersion", "60"}}}}});
    cache.take(std::move(events));
  }

  Result<kube::HttpResponse> answer(const kube::HttpRequest& request) {
    if (meanwhile_) std::exchange(meanwhile_, nullptr)();
    if (refuse_) return status_answer(500, "InternalError");
    const std::string path = request.target.substr(0, request.target.find('?'));
    const std::string last = path.substr(path.rfind('/') + 1);
    for (const Json& one : there_["deepseekmodels"]) {
      if (one["metadata"]["name"] == last) return json_answer(200, one);
    }
    return json_answer(200, {{"kind", "List"},
                             {"apiVersion", "v1"},
                             {"metadata", {{"resourceVersion", "100"}}},
                             {"items", there_[last]}});
  }

  std::vector<std::string> asked() {
    std::vector<std::string> targets;
    for (const auto& request : transport_.requests()) targets.push_back(request.target);
    return targets;
  }

  bool refuse_ = false;
  std::function<void()> meanwhile_;                 // while the next request is under way
  std::map<std::string, std::vector<Json>> there_;  // of each kind
  std::vector<std::pair<std::string, Millis>> looked_;
  kube::testing::ScriptedTransport transport_;
  ManualClock clock_;
  kube::Client client_{transport_, clock_, {}};
  Store store_;
  ModelDoubts doubts_{client_, "", store_, [this](const std::string& model, Millis delay) {
                        looked_.emplace_back(model, delay);
                      }};
};

TEST_F(ModelDoubtsTest, WithoutADoubtNothingIsRead) {
  EXPECT_TRUE(doubts_.settle("ns/a").value());
  EXPECT_THAT(asked(), IsEmpty());
}

TEST_F(ModelDoubtsTest, WhoBeginsReadsAllOfEachKindOnce) {
  doubts_.begin();
  EXPECT_TRUE(doubts_.settle("ns/a").value());
  const auto ours = AllOf(HasSubstr("managed-by"), HasSubstr("limit=100"));
  EXPECT_THAT(asked(),
              ElementsAre(AllOf(HasSubstr(kModels), HasSubstr("limit=100")),
                          AllOf(HasSubstr(kRevisions), ours), AllOf(HasSubstr(kPods), ours)));
  EXPECT_TRUE(doubts_.settle("ns/b").value());
  EXPECT_TRUE(doubts_.settle("ns/c").value());
  EXPECT_EQ(asked().size(), 3U);
}

TEST_F(ModelDoubtsTest, WhatIsGoneOrAnotherIsSeenAndLookedAt) {
  there_["deepseekmodels"].pop_back();
  Json newer = model("b");
  newer["metadata"]["resourceVersion"] = "70";
  newer["spec"] = {{"replicas", 3}};
  there_["deepseekmodels"][1] = newer;
  doubts_.begin();
  EXPECT_TRUE(doubts_.settle("ns/a").value());
  EXPECT_EQ(store_.pods.keys(), (std::vector<std::string>{"ns/a-r1-0-0", "ns/b-r1-0-0"}));
  EXPECT_EQ(store_.models.find("ns/c"), nullptr);
  EXPECT_EQ((*store_.models.find("ns/b"))["spec"]["replicas"], 3);
  EXPECT_THAT(looked_, ElementsAre(Pair("ns/b", Millis(0)), Pair("ns/c", Millis(0)),
                                   Pair("ns/a", Millis(0))));
}

TEST_F(ModelDoubtsTest, PagesAreReadToTheEnd) {
  doubts_.begin();
  transport_.next(json_answer(200, {{"metadata", {{"resourceVersion", "100"}, {"continue", "t"}}},
                                    {"items", {model("a")}}}));
  transport_.next(json_answer(
      200, {{"metadata", {{"resourceVersion", "100"}}}, {"items", {model("b"), model("c")}}}));
  EXPECT_TRUE(doubts_.settle("ns/a").value());
  EXPECT_THAT(asked()[1], HasSubstr("continue=t"));
  EXPECT_EQ(store_.models.size(), 3U);
}

TEST_F(ModelDoubtsTest, WhatWasEditedIsReadAlone) {
  doubts_.begin();
  EXPECT_TRUE(doubts_.settle("ns/c").value());
  EXPECT_THAT(asked(), ElementsAre(HasSubstr("/deepseekmodels/c"), HasSubstr("/pods?labelSelector"),
                                   HasSubstr("/controllerrevisions?labelSelector")));
}

TEST_F(ModelDoubtsTest, WhileOneReadsTheOthersWaitButNotWhatWasEdited) {
  doubts_.begin();
  std::optional<bool> waits;
  std::optional<bool> edited;
  meanwhile_ = [&] {
    waits = doubts_.settle("ns/b").value();
    edited = doubts_.settle("ns/c").value();
  };
  EXPECT_TRUE(doubts_.settle("ns/a").value());
  EXPECT_EQ(waits, false);
  EXPECT_EQ(edited, true);
  EXPECT_THAT(looked_, testing::Contains(Pair("ns/b", Millis(0))));
  const std::size_t before = asked().size();
  EXPECT_TRUE(doubts_.settle("ns/b").value());
  EXPECT_EQ(asked().size(), before);
}

TEST_F(ModelDoubtsTest, AReadingThatFailsIsDoneAgain) {
  doubts_.begin();
  refuse_ = true;
  meanwhile_ = [&] { EXPECT_FALSE(doubts_.settle("ns/b").value()); };
  EXPECT_FALSE(doubts_.settle("ns/a"));
  EXPECT_THAT(looked_, ElementsAre(Pair("ns/b", ModelDoubts::kReadAgain)));
  refuse_ = false;
  EXPECT_TRUE(doubts_.settle("ns/b").value());
  EXPECT_TRUE(doubts_.settle("ns/a").value());
}

TEST_F(ModelDoubtsTest, ADoubtThatComesDuringTheReadingStays) {
  doubts_.begin();
  meanwhile_ = [&] { doubts_.doubt("ns/b"); };
  EXPECT_TRUE(doubts_.settle("ns/a").value());
  const std::size_t before = asked().size();
  EXPECT_TRUE(doubts_.settle("ns/b").value());
  ASSERT_EQ(asked().size(), before + 3);
  EXPECT_THAT(asked()[before], HasSubstr("/deepseekmodels/b"));
}

TEST_F(ModelDoubtsTest, WhoBeginsAgainDuringTheReadingReadsAgain) {
  doubts_.begin();
  meanwhile_ = [&] { doubts_.begin(); };
  EXPECT_FALSE(doubts_.settle("ns/a"));
  EXPECT_TRUE(doubts_.settle("ns/b").value());
  EXPECT_EQ(asked().size(), 6U);
  EXPECT_TRUE(doubts_.settle("ns/a").value());
}

}  // namespace
}  // namespace dsm::runtime
