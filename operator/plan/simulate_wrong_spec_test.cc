// Histories of models whose spec cannot be taken any more: nothing new is begun, and what is there
// is kept whole.
#include "operator/plan/simulate_fixture.h"

namespace dsm::plan {
namespace {

const json kWrong = {{"parallelism", {{"tensor", 3}}}};

TenantGrant granted(int groups, const char* not_allowed = "") {
  TenantGrant grant;
  grant.groups = groups;
  grant.not_allowed = not_allowed;
  return grant;
}

TEST_F(History, with_a_wrong_spec_a_node_is_left_all_the_same) {
  ready();
  sim.least_ready = 2;
  sim.edit(kWrong);
  sim.cordon("node-0");
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.pods(), ElementsAre("A1.0", "A1.1", "A2.0", "A2.1"));
  EXPECT_EQ(sim.condition("Ready"), "False/InvalidSpec");
  EXPECT_EQ(sim.condition("Stalled"), "True/InvalidSpec");
  EXPECT_EQ(sim.status()["readyReplicas"], 2);
}

TEST_F(History, with_a_wrong_spec_a_drain_without_room_is_said_to_be_blocked) {
  ready();
  sim.least_ready = 2;
  sim.room = 4;
  sim.edit(kWrong);
  sim.cordon("node-0");
  sim.run(100);
  EXPECT_EQ(sim.condition("Progressing"), "False/DrainBlocked");
  EXPECT_EQ(sim.condition("Degraded"), "True/InvalidSpec");
  EXPECT_THAT(sim.message("Degraded"), HasSubstr("node node-0 is cordoned"));
}

TEST_F(History, with_a_wrong_spec_what_is_lost_is_made_again_as_it_was) {
  ready();
  sim.edit({{"parallelism", {{"tensor", 3}}}, {"image", "worker:2"}});
  sim.run(5);
  sim.lose_node("A0.1");
  sim.run(60);
  EXPECT_THAT(sim.pods(), ElementsAre("A0.1", "A1.0", "A1.1", "A2.0", "A2.1"));
  EXPECT_EQ(sim.pod("A2.0")["spec"]["containers"][0]["image"], "worker:1");
  sim.remove_pod("A1.0");
  sim.remove_pod("A1.1");
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(sim.ready_groups(), 2);
  EXPECT_EQ(sim.status()["readyReplicas"], 2);
  EXPECT_EQ(sim.children("ControllerRevision").size(), 1U);
  // Mended, it goes on with what it says.
  sim.edit({{"parallelism", {{"tensor", 2}}}});
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
  EXPECT_THAT(sim.pods(), ElementsAre("A0.1", "B0.0", "B0.1", "B1.0", "B1.1"));
}

TEST_F(History, a_spec_that_becomes_wrong_in_a_rollout_holds_it) {
  ready();
  sim.least_ready = 2;
  sim.edit({{"image", "worker:2"}});
  sim.run(2);
  sim.edit(kWrong);
  EXPECT_TRUE(sim.settle());
  // The new group had not served yet.
  EXPECT_THAT(sim.pods(), ElementsAre("A0.0", "A0.1", "A1.0", "A1.1"));
  sim.edit({{"parallelism", {{"tensor", 2}}}});
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.pods(), ElementsAre("B0.0", "B0.1", "B1.0", "B1.1"));
}

TEST_F(History, with_a_wrong_spec_the_number_of_groups_is_followed) {
  ready();
  sim.edit(kWrong);
  sim.scale(3);
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.pods(), ElementsAre("A0.0", "A0.1", "A1.0", "A1.1", "A2.0", "A2.1"));
  sim.scale(1000000);  // a number that cannot be meant
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(sim.pods().size(), 6U);
}

TEST_F(History, what_the_tenant_does_not_allow_any_more_is_kept_whole_and_does_not_grow) {
  sim.tenant = granted(2);
  ready();
  sim.tenant = granted(2, "spec.model.uri: is not allowed");
  sim.scale(4);
  sim.run(5);
  EXPECT_EQ(sim.condition("Ready"), "False/NotAllowed");
  sim.cordon("node-0");
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.pods(), ElementsAre("A1.0", "A1.1", "A2.0", "A2.1"));
  sim.remove_pod("A1.1");
  sim.lose_node("A2.0");
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(sim.ready_groups(), 2);
  EXPECT_EQ(sim.condition("Ready"), "False/NotAllowed");
}

TEST_F(History, what_was_never_allowed_runs_nothing) {
  sim.tenant = granted(0, "spec.model.uri: is not allowed");
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.pods(), IsEmpty());
  EXPECT_EQ(sim.condition("Ready"), "False/NotAllowed");
}

}  // namespace
}  // namespace dsm::plan
