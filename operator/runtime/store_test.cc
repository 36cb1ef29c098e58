#include "operator/runtime/store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace dsm::runtime {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Kind = kube::WatchEvent::Kind;

Json pod(const std::string& name, const std::string& version, const std::string& phase = "Pending",
         const std::string& uid = "") {
  return {{"apiVersion", "v1"},
          {"kind", "Pod"},
          {"metadata",
           {{"name", name},
            {"namespace", "ns"},
            {"uid", uid.empty() ? "uid-" + name : uid},
            {"resourceVersion", version},
            {"labels", {{"deepseek-operator.io/model", "r1"}}}}},
          {"status", {{"phase", phase}}}};
}

Json version_only(const std::string& version) {
  return {{"metadata", {{"resourceVersion", version}}}};
}

class PodCache : public ::testing::Test {
 protected:
  std::set<std::string> list(const std::vector<Json>& pods, const std::string& version) {
    std::vector<kube::WatchEvent> events{{Kind::kInit, nullptr}};
    for (const Json& each : pods) events.push_back({Kind::kInitApply, each});
    events.push_back({Kind::kInitDone, version_only(version)});
    return cache_.take(std::move(events));
  }
  std::set<std::string> apply(const Json& object) { return cache_.take({{Kind::kApply, object}}); }
  std::set<std::string> gone(const Json& object) { return cache_.take({{Kind::kDelete, object}}); }
  std::vector<std::string> names() {
    std::vector<std::string> result;
    for (const auto& each : cache_.of_model("ns/r1")) {
      result.push_back(each->name + " " + each->phase);
    }
    return result;
  }

  Cache<PodTraits> cache_;
};

TEST_F(PodCache, IsEmptyUntilAWholeListHasCome) {
  cache_.take({{Kind::kInit, nullptr}, {Kind::kInitApply, pod("a", "1")}});
  EXPECT_FALSE(cache_.synced());
  EXPECT_THAT(names(), IsEmpty());
  cache_.take({{Kind::kInitDone, version_only("2")}});
  EXPECT_TRUE(cache_.synced());
  EXPECT_THAT(names(), ElementsAre("a Pending"));
}

TEST_F(PodCache, TellsWhichModelChanged) {
  EXPECT_THAT(list({pod("a", "1")}, "2"), ElementsAre("ns/r1"));
  EXPECT_THAT(apply(pod("a", "3", "Running")), ElementsAre("ns/r1"));
  EXPECT_THAT(gone(pod("a", "4")), ElementsAre("ns/r1"));
}

TEST_F(PodCache, AChangeThatNoDecisionReadsIsNoChange) {
  list({pod("a", "1")}, "2");
  Json annotated = pod("a", "3");
  annotated["metadata"]["annotations"] = {{"note", "x"}};
  EXPECT_THAT(apply(annotated), IsEmpty());
  EXPECT_THAT(list({annotated}, "4"), IsEmpty());
}

TEST_F(PodCache, ANewListDropsWhatItDoesNotHold) {
  list({pod("a", "1"), pod("b", "2")}, "3");
  EXPECT_THAT(list({pod("b", "2")}, "9"), ElementsAre("ns/r1"));
  EXPECT_THAT(names(), ElementsAre("b Pending"));
}

TEST_F(PodCache, AnUnfinishedListIsDroppedByTheNextOne) {
  list({pod("a", "1")}, "2");
  cache_.take({{Kind::kInit, nullptr}, {Kind::kInitApply, pod("x", "3")}});
  EXPECT_THAT(names(), ElementsAre("a Pending"));
  list({pod("a", "1")}, "4");
  EXPECT_THAT(names(), ElementsAre("a Pending"));
}

TEST_F(PodCache, OurOwnWriteIsSeenBeforeTheWatchBringsIt) {
  list({}, "5");
  cache_.put(pod("a", "6"));
  EXPECT_THAT(names(), ElementsAre("a Pending"));
  EXPECT_THAT(apply(pod("a", "6")), IsEmpty());
}

TEST_F(PodCache, ALateAnswerDoesNotBringBackWhatTheWatchSawEnd) {
  list({}, "5");
  apply(pod("a", "6"));
  gone(pod("a", "7"));
  cache_.put(pod("a", "6"));
  EXPECT_THAT(names(), IsEmpty());
}

TEST_F(PodCache, ARefreshedModelHasWhatTheListHolds) {
  list({pod("a", "3"), pod("b", "4"), pod("c", "4")}, "5");
  cache_.put(pod("new", "12"));
  // b is gone, c has ended; the list is older than the answer that brought the new one.
  cache_.refresh("ns/r1", {pod("a", "3"), pod("c", "9", "Failed")}, "10");
  EXPECT_THAT(names(), ElementsAre("a Pending", "c Failed", "new Pending"));
  // What the watch brings later is no news of it.
  EXPECT_THAT(apply(pod("c", "9", "Failed")), IsEmpty());
}

TEST_F(PodCache, AKindThatWasRemovedBeginsAnew) {
  list({pod("a", "8")}, "9");
  cache_.clear();
  EXPECT_FALSE(cache_.synced());
  EXPECT_THAT(names(), IsEmpty());
  EXPECT_THAT(list({pod("b", "3")}, "4"), ElementsAre("ns/r1"));
  EXPECT_THAT(names(), ElementsAre("b Pending"));
}

TEST(NodeCache, TellsWhichNodeChangedInWhatADecisionReads) {
  const auto node = [](const std::string& version, bool cordoned) {
    return Json{{"metadata", {{"name", "n1"}, {"uid", "u"}, {"resourceVersion", version}}},
                {"spec", {{"unschedulable", cordoned}}},
                {"status", {{"conditions", {{{"type", "Ready"}, {"status", "True"}}}}}}};
  };
  Cache<NodeTraits> nodes;
  nodes.take({{Kind::kInit, nullptr},
              {Kind::kInitApply, node("1", false)},
              {Kind::kInitDone, version_only("1")}});
  ASSERT_TRUE(nodes.find("n1"));
  Json heartbeat = node("2", false);
  heartbeat["status"]["conditions"][0]["lastHeartbeatTime"] = "2026-01-01T00:00:00Z";
  EXPECT_THAT(nodes.take({{Kind::kApply, heartbeat}}), IsEmpty());
  EXPECT_THAT(nodes.take({{Kind::kApply, node("3", true)}}), ElementsAre("n1"));
  EXPECT_TRUE(nodes.find("n1")->unschedulable);
}

TEST(StoreTest, WaitsForNodesOnlyWhereTheyAreWatched) {
  Store store;
  const std::vector<kube::WatchEvent> empty{{Kind::kInit, nullptr},
                                            {Kind::kInitDone, version_only("1")}};
  store.models.take(empty);
  store.pods.take(empty);
  store.services.take(empty);
  store.revisions.take(empty);
  store.autoscalers.take(empty);
  EXPECT_TRUE(store.synced());
  store.with_nodes = true;
  EXPECT_FALSE(store.synced());
  store.nodes.take(empty);
  store.budgets.take(empty);
  EXPECT_TRUE(store.synced());
}

TEST_F(PodCache, AnOlderWatchEventDoesNotUndoAnAnswer) {
  list({pod("a", "5")}, "5");
  cache_.put(pod("a", "8", "Running"));
  apply(pod("a", "7", "Pending"));
  EXPECT_THAT(names(), ElementsAre("a Running"));
  apply(pod("a", "9", "Failed"));
  EXPECT_THAT(names(), ElementsAre("a Failed"));
}

TEST_F(PodCache, AListOlderThanOurWriteKeepsIt) {
  list({}, "5");
  cache_.put(pod("a", "8"));
  list({}, "7");
  EXPECT_THAT(names(), ElementsAre("a Pending"));
  list({}, "9");
  EXPECT_THAT(names(), IsEmpty());
}

TEST_F(PodCache, ADeletedPodIsMarkedAtOnceAndStaysMarked) {
  list({pod("a", "5")}, "5");
  Json deleted = pod("a", "5");
  deleted["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z";
  cache_.mark(deleted);
  apply(pod("a", "5"));
  ASSERT_EQ(cache_.of_model("ns/r1").size(), 1u);
  EXPECT_TRUE(cache_.of_model("ns/r1")[0]->deletion);
}

TEST_F(PodCache, MarkingWhatIsGoneDoesNothing) {
  list({}, "5");
  cache_.mark(pod("a", "6"));
  EXPECT_THAT(names(), IsEmpty());
}

TEST_F(PodCache, TheEndOfAnOldIncarnationLeavesTheNewOne) {
  list({pod("a", "5", "Failed", "old")}, "5");
  cache_.put(pod("a", "9", "Pending", "new"));
  gone(pod("a", "8", "Failed", "old"));
  EXPECT_THAT(names(), ElementsAre("a Pending"));
  cache_.erase("ns/a", "old");
  EXPECT_THAT(names(), ElementsAre("a Pending"));
  cache_.erase("ns/a", "new");
  EXPECT_THAT(names(), IsEmpty());
}

TEST(ModelCache, KeepsTheObjectWithoutWhatKubectlNoted) {
  Cache<ModelTraits> cache;
  cache.put({{"metadata",
              {{"name", "r1"},
               {"namespace", "ns"},
               {"uid", "u"},
               {"resourceVersion", "3"},
               {"annotations", {{"kubectl.kubernetes.io/last-applied-configuration", "{}"}}}}},
             {"spec", {{"replicas", 2}}}});
  const auto model = cache.find("ns/r1");
  ASSERT_TRUE(model);
  EXPECT_TRUE((*model)["metadata"]["annotations"].empty());
  EXPECT_EQ((*model)["spec"]["replicas"], 2);
  EXPECT_THAT(cache.keys(), ElementsAre("ns/r1"));
}

TEST(AutoscalerCache, ChangesOnlyWithWhatIsWantedAndWhatItComplainsOf) {
  Cache<AutoscalerTraits> cache;
  const auto take = [&](const std::string& version, int replicas, const std::string& reason) {
    return cache.take({{kube::WatchEvent::Kind::kApply,
                        {{"metadata",
                          {{"name", "r1"},
                           {"namespace", "ns"},
                           {"uid", "u"},
                           {"resourceVersion", version},
                           {"labels", {{"deepseek-operator.io/model", "r1"}}}}},
                         {"status",
                          {{"currentReplicas", replicas},
                           {"conditions", Json::array({{{"reason", reason}}})}}}}}});
  };
  EXPECT_THAT(take("5", 1, "ValidMetricFound"), ElementsAre("ns/r1"));
  EXPECT_THAT(take("6", 2, "ValidMetricFound"), IsEmpty());
  EXPECT_THAT(take("7", 2, "FailedGetExternalMetric"), ElementsAre("ns/r1"));
}

}  // namespace
}  // namespace dsm::runtime
