// Histories of rollbacks that leave the spec alone.
#include "operator/api/names.h"
#include "operator/plan/simulate_fixture.h"

namespace dsm::plan {
namespace {

class Rollback : public History {
 protected:
  // Revision A serves, then B: whole, or as far as `seconds` bring it.
  void roll_out(int seconds = 0) {
    ready();
    sim.edit({{"image", "worker:2"}});
    if (seconds > 0) return sim.run(seconds);
    ASSERT_TRUE(sim.settle());
    ASSERT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
    sim.forget_history();
  }
  void go_back(const char* time = "1") {
    const std::string wanted = sim.status()["updatedRevision"];
    sim.annotate({{std::string(api::kRollbackAnnotation), wanted + "@" + time}});
  }
};

TEST_F(Rollback, the_revision_before_serves_again_and_the_spec_stays) {
  roll_out();
  const json spec = sim.spec();
  sim.least_ready = 2;
  go_back();
  sim.run(2);
  EXPECT_EQ(sim.condition("Ready"), "False/RollingUpdate");
  EXPECT_THAT(sim.message("Ready"), HasSubstr("is rolled back"));
  EXPECT_EQ(sim.condition("Progressing"), "True/RollingUpdate");
  EXPECT_EQ(sim.condition("Stalled"), "False/AsWanted");
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.pods(), ElementsAre("A0.0", "A0.1", "A1.0", "A1.1"));
  EXPECT_EQ(sim.spec(), spec);
  EXPECT_THAT(sim.events(), Contains("RollbackBegun"));
  EXPECT_EQ(sim.status()["updatedRevision"], sim.status()["currentRevision"]);
  EXPECT_EQ(sim.status()["rollback"]["to"], sim.status()["currentRevision"]);
}

TEST_F(Rollback, what_serves_is_not_what_the_spec_asks_for_and_that_is_said) {
  roll_out();
  go_back();
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(sim.condition("Ready"), "False/RolledBack");
  EXPECT_EQ(sim.condition("Progressing"), "False/RolledBack");
  EXPECT_EQ(sim.condition("Stalled"), "True/RolledBack");
  EXPECT_EQ(sim.condition("Degraded"), "False/AsWanted");
  EXPECT_THAT(sim.message("Stalled"), HasSubstr("2 of 2 groups answer with revision"));
  EXPECT_THAT(sim.message("Stalled"), HasSubstr("Edit the spec (where it is in git, revert it"));
  EXPECT_EQ(std::ranges::count(sim.events(), "RolledBack"), 1);
  EXPECT_EQ(sim.status()["observedGeneration"], sim.generation());
  EXPECT_EQ(sim.status()["readyReplicas"], 2);
}

TEST_F(Rollback, in_the_middle_of_a_rollout_the_groups_that_serve_stay) {
  roll_out(2);
  ASSERT_THAT(sim.pods(), Contains("B0.0"));
  sim.least_ready = 2;
  go_back();
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.pods(), ElementsAre("A0.0", "A0.1", "A1.0", "A1.1"));
  EXPECT_EQ(sim.condition("Ready"), "False/RolledBack");
}

TEST_F(Rollback, a_bad_revision_that_never_served_is_left) {
  sim.bad_image = "worker:2";
  roll_out(60);
  ASSERT_NE(sim.condition("Degraded"), "False/AsWanted");
  sim.least_ready = 2;
  go_back();
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.pods(), ElementsAre("A0.0", "A0.1", "A1.0", "A1.1"));
  EXPECT_EQ(sim.condition("Degraded"), "False/AsWanted");
}

TEST_F(Rollback, a_revert_of_the_spec_changes_no_pod_and_ends_it) {
  roll_out();
  go_back();
  EXPECT_TRUE(sim.settle());
  sim.forget_history();
  sim.edit({{"image", nullptr}});
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
  EXPECT_EQ(sim.condition("Stalled"), "False/AsWanted");
  EXPECT_THAT(sim.history(), Not(Contains(HasSubstr("-A"))));
  EXPECT_THAT(sim.history(), Not(Contains(HasSubstr("+"))));
  EXPECT_EQ(sim.status()["rollback"]["active"], false);
  // The annotation is still there, and a release that asks for B again gets it.
  sim.edit({{"image", "worker:2"}});
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.pods(), ElementsAre("B0.0", "B0.1", "B1.0", "B1.1"));
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
}

TEST_F(Rollback, another_edit_is_rolled_out) {
  roll_out();
  go_back();
  EXPECT_TRUE(sim.settle());
  sim.edit({{"image", "worker:3"}});
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.pods(), ElementsAre("C0.0", "C0.1", "C1.0", "C1.1"));
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
  EXPECT_THAT(sim.events(), Contains("RollbackOver"));
}

TEST_F(Rollback, without_the_annotation_the_spec_is_rolled_out_again) {
  roll_out();
  go_back();
  EXPECT_TRUE(sim.settle());
  sim.least_ready = 2;
  sim.annotate({{std::string(api::kRollbackAnnotation), nullptr}});
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
  EXPECT_THAT(sim.pods(), ElementsAre("B0.0", "B0.1", "B1.0", "B1.1"));
  EXPECT_FALSE(sim.status().contains("rollback"));
}

TEST_F(Rollback, groups_are_scaled_meanwhile) {
  roll_out();
  go_back();
  EXPECT_TRUE(sim.settle());
  sim.scale(3);
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.pods(), ElementsAre("A0.0", "A0.1", "A1.0", "A1.1", "A2.0", "A2.1"));
  EXPECT_EQ(sim.condition("Ready"), "False/RolledBack");
  EXPECT_THAT(sim.message("Ready"), HasSubstr("3 of 3 groups"));
}

TEST_F(Rollback, what_cannot_be_rolled_back_goes_on_and_an_event_says_why) {
  ready();
  go_back();
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
  EXPECT_THAT(sim.events(), Contains("RollbackRefused"));
  EXPECT_EQ(sim.status()["rollback"]["message"],
            "nothing is rolled back: there is no other revision to go back to");
}

TEST_F(Rollback, a_revision_that_the_tenant_does_not_allow_is_not_run_again) {
  roll_out();
  const std::string other = sim.children("ControllerRevision").front();
  const std::string wanted = "m-" + sim.status()["updatedRevision"].get<std::string>();
  const std::string before = other == wanted ? sim.children("ControllerRevision").back() : other;
  TenantGrant grant;
  grant.groups = 2;
  grant.keys_required = false;
  grant.revisions_not_allowed = {before.substr(2)};
  sim.tenant = grant;
  go_back();
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.pods(), ElementsAre("B0.0", "B0.1", "B1.0", "B1.1"));
  EXPECT_THAT(std::string(sim.status()["rollback"]["message"]), HasSubstr("tenant"));
}

TEST_F(Rollback, a_paused_rollout_stays_where_it_is) {
  roll_out(4);
  sim.edit({{"rollout", {{"paused", true}}}});
  sim.run(30);
  const auto pods = sim.pods();
  go_back();
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(sim.pods(), pods);
}

}  // namespace
}  // namespace dsm::plan
