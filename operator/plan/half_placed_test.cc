// From when on a group of which some pods have nodes holds them for nothing.
#include "operator/plan/simulate_fixture.h"

namespace dsm::plan {
namespace {

class HalfPlaced : public History {
 protected:
  // Both groups wait for nodes for longer than half a group may, and hold nothing.
  void wait_whole() {
    sim.room = 0;
    EXPECT_TRUE(sim.settle());
    sim.run(400);
    sim.forget_history();
  }
  bool bound(const std::string& pod) const { return sim.pod(pod)["spec"].contains("nodeName"); }
};

TEST_F(HalfPlaced, nodes_that_come_one_by_one_complete_a_group_that_has_waited) {
  wait_whole();
  sim.room = 1;
  sim.run(200);
  EXPECT_TRUE(bound("A0.0"));
  EXPECT_THAT(sim.history(), IsEmpty());
  sim.room = 4;
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
}

TEST_F(HalfPlaced, it_gives_back_what_it_has_held_for_five_minutes) {
  wait_whole();
  sim.room = 1;
  sim.run(299);
  EXPECT_THAT(sim.history(), IsEmpty());
  sim.run(5);
  EXPECT_EQ(sim.status()["backoff"]["reason"], "Unschedulable");
  EXPECT_EQ(sim.status()["backoff"]["count"], 1);
}

}  // namespace
}  // namespace dsm::plan
