// The simulated Kueue admits groups whole, evicts them whole, and holds what has ended.
#include "operator/faults/kueue_controller.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kube/client.h"
#include "operator/faults/fault_source.h"
#include "operator/faults/wire.h"
#include "operator/plan/kueue.h"
#include "operator/plan/simulate_json.h"

namespace dsm::faults {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

class KueueControllerTest : public ::testing::Test {
 protected:
  KueueControllerTest() { kueue_.queues["main"].quota = 3; }

  bool make(const std::string& group, int index) {
    const Json container = {{"image", "i"}, {"args", {"--tensor-parallel", "2"}}};
    Json pod = {{"apiVersion", "v1"},
                {"kind", "Pod"},
                {"metadata", {{"name", group + "-" + std::to_string(index)}, {"namespace", "ns"}}},
                {"spec", {{"containers", Json::array({container})}}}};
    plan::join_queue("main", group, 2, pod["metadata"]);
    pod["metadata"]["labels"]["deepseek-operator.io/group"] = "0";
    return client_.create(kube::kPods, "ns", pod).has_value();
  }
  void pass(int seconds) {
    for (int i = 0; i < seconds; ++i) {
      clock_.advance(Seconds(1));
      server_.pass_second();
      kueue_.pass_second();
    }
  }
  std::vector<std::string> running() {
    std::vector<std::string> names;
    for (const auto& [key, pod] : server_.objects().all(kube::kPods)) {
      if (pod["status"]["phase"] == "Running") names.push_back(pod["metadata"]["name"]);
    }
    return names;
  }

  ManualClock clock_;
  ApiServer server_{clock_};
  std::vector<std::string> evicted_;
  KueueController kueue_{server_, [this](const plan::SimulatedPod& pod) {
                           evicted_.push_back(pod.object["metadata"]["name"]);
                         }};
  OneFault none_;
  Wire wire_{server_, none_, {[] { return true; }, [](Millis) {}, [] {}, [](const auto&, bool) {}}};
  kube::Client client_{wire_, clock_, {}};
};

TEST_F(KueueControllerTest, AGroupWaitsUntilItIsWholeAndHasQuotaForAllOfIt) {
  make("a", 0);
  pass(3);
  EXPECT_THAT(running(), IsEmpty());
  make("a", 1);
  make("b", 0);
  make("b", 1);
  pass(3);
  EXPECT_THAT(running(), ElementsAre("a-0", "a-1"));
  EXPECT_EQ(kueue_.reserved("main"), 2);
  const Json* const waits = server_.objects().find(kube::kWorkloads, "ns/b");
  ASSERT_NE(waits, nullptr);
  EXPECT_THAT(plan::waiting_words(*waits), ::testing::HasSubstr("1 more needed"));
  kueue_.queues["main"].quota = 4;
  pass(3);
  EXPECT_THAT(running(), UnorderedElementsAre("a-0", "a-1", "b-0", "b-1"));
}

TEST_F(KueueControllerTest, WhoIsEvictedIsDeletedAndHeldAndItsQuotaIsFreeWhenItHasEnded) {
  make("a", 0);
  make("a", 1);
  pass(3);
  kueue_.queues["main"].others = 2;
  kueue_.queues["main"].preempts = true;
  pass(1);
  EXPECT_THAT(evicted_, UnorderedElementsAre("a-0", "a-1"));
  EXPECT_EQ(kueue_.reserved("main"), 2) << "they still run";
  pass(5);
  EXPECT_EQ(kueue_.reserved("main"), 0);
  const Json* const held = server_.objects().find(kube::kPods, "ns/a-0");
  ASSERT_NE(held, nullptr);
  EXPECT_EQ((*held)["status"]["phase"], "Succeeded");
  const Json patch = {
      {"metadata", {{"$deleteFromPrimitiveList/finalizers", {plan::kQueueFinalizer}}}}};
  ASSERT_TRUE(client_.strategic_patch(kube::kPods, "ns", "a-0", patch));
  EXPECT_EQ(server_.objects().find(kube::kPods, "ns/a-0"), nullptr);
  ASSERT_TRUE(client_.strategic_patch(kube::kPods, "ns", "a-1", patch));
  pass(1);
  EXPECT_THAT(server_.objects().all(kube::kWorkloads), IsEmpty());
}

TEST_F(KueueControllerTest, StoppedItTakesNoGateAwayAndWithoutItsWebhookNoPodIsMade) {
  make("a", 0);
  make("a", 1);
  kueue_.stop_amid_an_admission(10);
  pass(5);
  EXPECT_EQ(running().size(), 1U) << "the other one still has its gate";
  pass(10);
  EXPECT_EQ(running().size(), 2U);
  kueue_.stop(10, /*webhook_too=*/true);
  EXPECT_FALSE(make("b", 0));
  kueue_.go_on();
  EXPECT_TRUE(make("b", 0));
}

}  // namespace
}  // namespace dsm::faults
