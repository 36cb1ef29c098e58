// Histories of edits that follow one another quickly.
#include "operator/plan/simulate_fixture.h"

namespace dsm::plan {
namespace {

std::vector<json> edits(int count) {
  std::vector<json> patches;
  for (int i = 0; i < count; ++i) patches.push_back({{"engine", {{"maxNumSeqs", i + 1}}}});
  return patches;
}

int made(const Simulation& sim, const std::string& what) {
  int count = 0;
  for (const std::string& line : sim.history()) {
    for (auto at = line.find(what); at != std::string::npos; at = line.find(what, at + 1)) ++count;
  }
  return count;
}

TEST_F(History, the_first_of_quick_edits_is_begun_at_once_and_then_only_the_last_counts) {
  ready();
  sim.least_ready = 2;
  sim.edit_quickly(edits(10), Millis(100));
  EXPECT_THAT(sim.history(), Contains(HasSubstr("100s")));
  EXPECT_EQ(made(sim, "+B0.0"), 1);
  EXPECT_EQ(sim.condition("Ready"), "False/RollingUpdate");
  EXPECT_EQ(sim.status()["observedGeneration"], sim.generation());
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
  EXPECT_THAT(sim.pod("C0.0")["spec"]["containers"][0]["args"], Contains(json("10")));
  EXPECT_THAT(sim.pods(), ElementsAre("C0.0", "C0.1", "C1.0", "C1.1"));
  EXPECT_EQ(made(sim, "+B"), 2) << "one group of the first one";
  EXPECT_EQ(sim.children("ControllerRevision").size(), 3U);
}

TEST_F(History, a_stream_of_edits_makes_a_revision_every_two_seconds_at_most) {
  ready();
  sim.least_ready = 2;
  sim.edit_quickly(edits(100), Millis(100));
  EXPECT_LE(sim.children("ControllerRevision").size(), 1U + 6U);
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
  EXPECT_EQ(sim.status()["currentRevision"], sim.status()["updatedRevision"]);
  EXPECT_EQ(sim.pods().size(), 4U);
}

TEST_F(History, going_back_and_scaling_wait_for_nothing) {
  ready();
  sim.edit_quickly({{{"image", "worker:2"}}, {{"image", "worker:3"}, {"replicas", 4}}},
                   Millis(100));
  EXPECT_EQ(made(sim, "+A2.0"), 1) << "of the revision that serves";
  sim.edit_quickly({{{"image", nullptr}}}, Millis(100));
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.pods(),
              ElementsAre("A0.0", "A0.1", "A1.0", "A1.1", "A2.0", "A2.1", "A3.0", "A3.1"));
}

TEST_F(History, a_model_that_is_edited_while_it_is_made_is_made_as_it_was_edited_last) {
  sim.run(2);
  sim.edit_quickly(edits(5), Millis(100));
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
  EXPECT_EQ(sim.pods().size(), 4U);
  EXPECT_LE(sim.children("ControllerRevision").size(), 3U);
}

}  // namespace
}  // namespace dsm::plan
