// Rollouts of models whose tenant's budget has no room for one more group.
#include "operator/plan/simulate_fixture.h"

namespace dsm::plan {
namespace {

TenantGrant two_groups(double room_milli_cpu) {
  TenantGrant grant;
  grant.groups = 2;
  grant.tenant = "a";
  grant.room = {{"cpu", room_milli_cpu}};
  grant.no_room_since = from_rfc3339("2020-01-01T00:00:00Z");
  return grant;
}

class Cramped : public History {
 protected:
  Cramped() {
    ready();
    sim.tenant = two_groups(100);  // a group takes 200
  }
};

TEST_F(Cramped, a_rollout_waits_and_says_what_a_group_takes_and_goes_on_when_there_is_room) {
  sim.least_ready = 2;
  sim.edit({{"image", "worker:2"}});
  sim.run(5);
  for (const char* type : {"Ready", "Progressing", "Stalled"}) {
    EXPECT_THAT(sim.condition(type), HasSubstr("/SurgeUnschedulable")) << type;
    EXPECT_THAT(sim.message(type), HasSubstr("tenant a's budget has 100m cpu left")) << type;
    EXPECT_THAT(sim.message(type), HasSubstr("takes 200m")) << type;
  }
  EXPECT_THAT(sim.pods(), ElementsAre("A0.0", "A0.1", "A1.0", "A1.1"));
  sim.tenant = two_groups(200);
  sim.run(400);
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
  EXPECT_THAT(sim.pods(), ElementsAre("B0.0", "B0.1", "B1.0", "B1.1"));
}

TEST_F(Cramped, a_lack_that_may_pass_is_waited_for) {
  sim.tenant->no_room_since.reset();
  sim.edit({{"image", "worker:2"}});
  sim.run(5);
  EXPECT_EQ(sim.condition("Stalled"), "False/AsWanted");
  sim.tenant->room["cpu"] = 200;
  sim.run(60);
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
}

TEST_F(Cramped, where_one_may_be_missing_an_old_group_goes_first) {
  sim.least_ready = 1;
  sim.edit({{"rollout", {{"maxUnavailable", 1}}}, {"image", "worker:2"}});
  sim.run(40);
  EXPECT_THAT(sim.pods(), ElementsAre("A1.0", "A1.1")) << "and no more before there is room";
  EXPECT_THAT(sim.message("Ready"), HasSubstr("tenant a's budget has 100m cpu left"));
  sim.tenant->room["cpu"] = 200;
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
}

}  // namespace
}  // namespace dsm::plan
