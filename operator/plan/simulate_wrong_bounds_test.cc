// Histories of models that scale by load and whose spec cannot be taken any more.
#include "operator/plan/simulate_fixture.h"

namespace dsm::plan {
namespace {

const json kWrong = {{"parallelism", {{"tensor", 3}}}};

TEST_F(History, with_a_wrong_spec_the_bounds_of_the_scaling_hold_all_the_same) {
  sim.edit({{"replicas", 0}, {"scaling", {{"minReplicas", 2}, {"maxReplicas", 3}}}});
  ready();
  sim.least_ready = 2;
  sim.edit(kWrong);
  ASSERT_TRUE(sim.settle());
  EXPECT_EQ(sim.condition("Stalled"), "True/InvalidSpec");
  EXPECT_EQ(sim.ready_groups(), 2);
  sim.scale(5);
  ASSERT_TRUE(sim.settle());
  EXPECT_EQ(sim.ready_groups(), 3);
}

TEST_F(History, with_a_wrong_spec_the_groups_that_a_schedule_has_asked_for_stay) {
  const json day = {
      {"name", "day"}, {"from", "00:00"}, {"to", "12:00"}, {"minReplicas", 3}, {"maxReplicas", 4}};
  sim.edit({{"replicas", 1},
            {"scaling", {{"minReplicas", 1}, {"maxReplicas", 2}, {"schedules", {day}}}}});
  ready();
  ASSERT_EQ(sim.ready_groups(), 3);
  sim.least_ready = 3;
  sim.edit(kWrong);
  ASSERT_TRUE(sim.settle());
  EXPECT_EQ(sim.condition("Stalled"), "True/InvalidSpec");
  EXPECT_EQ(sim.ready_groups(), 3);
}

}  // namespace
}  // namespace dsm::plan
