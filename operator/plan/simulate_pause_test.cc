// Histories of rollouts that are held, and of the revisions that are kept.
#include "operator/plan/simulate_fixture.h"

namespace dsm::plan {
namespace {

using testing::_;
using testing::Pair;

TEST_F(History, a_paused_rollout_changes_nothing_until_it_goes_on) {
  ready();
  sim.least_ready = 2;
  sim.edit({{"image", "worker:2"}, {"rollout", {{"paused", true}}}});
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.pods(), ElementsAre("A0.0", "A0.1", "A1.0", "A1.1"));
  EXPECT_EQ(sim.condition("Ready"), "False/RolloutPaused");
  EXPECT_EQ(sim.condition("Progressing"), "False/RolloutPaused");
  EXPECT_EQ(sim.condition("Stalled"), "False/AsWanted");
  EXPECT_EQ(sim.status()["ready"], "2/2");
  sim.edit({{"rollout", {{"paused", false}}}});
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.pods(), ElementsAre("B0.0", "B0.1", "B1.0", "B1.1"));
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
}

TEST_F(History, while_it_is_paused_groups_are_scaled_and_mended_as_they_serve) {
  ready();
  sim.edit({{"image", "worker:2"}, {"rollout", {{"paused", true}}}});
  sim.scale(3);
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.pods(), ElementsAre("A0.0", "A0.1", "A1.0", "A1.1", "A2.0", "A2.1"));
  sim.remove_pod("A0.1");
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(sim.pod("A0.1")["spec"]["containers"][0]["image"], "worker:1");
  sim.work = {{"A0.0", 1}, {"A1.0", 0}, {"A2.0", 2}};
  sim.scale(2);
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.pods(), ElementsAre("A0.0", "A0.1", "A2.0", "A2.1"));
}

TEST_F(History, a_rollout_paused_midway_keeps_both_revisions_and_can_go_back) {
  sim.scale(3);
  ready();
  sim.least_ready = 3;
  sim.edit({{"image", "worker:2"}});
  sim.run(6);  // the first new group is ready, the first old one goes
  sim.edit({{"rollout", {{"paused", true}}}});
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.pods(), ElementsAre("A1.0", "A1.1", "A2.0", "A2.1", "B0.0", "B0.1"));
  EXPECT_THAT(sim.message("Ready"), HasSubstr("1 of 3 groups are ready with revision"));
  sim.edit({{"image", nullptr}, {"rollout", nullptr}});
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.pods(), ElementsAre("A0.0", "A0.1", "A1.0", "A1.1", "A2.0", "A2.1"));
}

TEST_F(History, a_model_that_is_paused_from_the_start_is_made_all_the_same) {
  sim.edit({{"rollout", {{"paused", true}}}});
  ready();
  EXPECT_THAT(sim.pods(), ElementsAre("A0.0", "A0.1", "A1.0", "A1.1"));
}

TEST_F(History, as_many_unused_revisions_are_kept_as_the_history_limit_says) {
  sim.edit({{"rollout", {{"historyLimit", 2}}}});
  ready();
  for (int i = 0; i < 5; ++i) {
    sim.edit({{"engine", {{"maxNumSeqs", i + 1}}}});
    ASSERT_TRUE(sim.settle());
  }
  EXPECT_EQ(sim.children("ControllerRevision").size(), 3U);  // and the one in use
  sim.edit({{"rollout", {{"historyLimit", 4}}}, {"engine", {{"maxNumSeqs", 9}}}});
  ASSERT_TRUE(sim.settle());
  EXPECT_EQ(sim.children("ControllerRevision").size(), 4U);
}

// The numbers of its revisions, and "+" where one is known to have served, by the number of
// sequences that tells them apart.
std::map<int, std::string> revisions(const Simulation& sim) {
  std::map<int, std::string> out;
  for (const json& child : sim.children()) {
    if (child["kind"] != "ControllerRevision") continue;
    const json served = child.value(
        json::json_pointer("/metadata/annotations/deepseek-operator.io~1served"), json());
    const json spec = child["data"]["spec"];
    out[spec["engine"]["maxNumSeqs"]] = child["revision"].dump() + (served.is_null() ? "" : "+");
  }
  return out;
}

TEST_F(History, revisions_are_numbered_in_the_order_in_which_they_served) {
  sim.bad_image = "bad:1";
  const auto be = [&](int sequences, const char* image) {
    sim.edit({{"engine", {{"maxNumSeqs", sequences}}}, {"image", image}});
    ASSERT_TRUE(sim.settle());
  };
  be(1, "good:1");
  EXPECT_THAT(revisions(sim), ElementsAre(Pair(1, "1"))) << "alone there is nothing to tell apart";
  be(2, "good:1");
  EXPECT_THAT(revisions(sim), ElementsAre(Pair(1, "1+"), Pair(2, "2+")));
  sim.edit({{"engine", {{"maxNumSeqs", 3}}}, {"image", "bad:1"}});
  sim.run(60);
  EXPECT_THAT(revisions(sim), ElementsAre(Pair(1, "1+"), Pair(2, "2+"), Pair(3, "3")));
  be(2, "good:1");
  EXPECT_THAT(revisions(sim), ElementsAre(Pair(1, "1+"), Pair(2, "4+"), Pair(3, "3")));
  be(4, "good:1");
  EXPECT_THAT(revisions(sim),
              ElementsAre(Pair(1, "1+"), Pair(2, "4+"), Pair(3, "3"), Pair(4, "5+")));
}

TEST_F(History, revisions_that_never_served_are_forgotten_first) {
  sim.bad_image = "bad:1";
  sim.edit({{"rollout", {{"historyLimit", 2}}}, {"engine", {{"maxNumSeqs", 1}}}});
  ASSERT_TRUE(sim.settle());
  sim.edit({{"engine", {{"maxNumSeqs", 2}}}});
  ASSERT_TRUE(sim.settle());
  for (int bad = 3; bad < 6; ++bad) {
    sim.edit({{"engine", {{"maxNumSeqs", bad}}}, {"image", "bad:1"}});
    sim.run(30);
  }
  sim.edit({{"engine", {{"maxNumSeqs", 2}}}, {"image", nullptr}});
  ASSERT_TRUE(sim.settle());
  EXPECT_THAT(revisions(sim), ElementsAre(Pair(1, "1+"), Pair(2, _), Pair(5, _)));
}

}  // namespace
}  // namespace dsm::plan
