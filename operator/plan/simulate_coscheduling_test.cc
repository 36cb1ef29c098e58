// Histories of groups that a scheduler binds together or not at all, where the coscheduling plugin
// is installed, and of a cluster where it is not, or not yet.
#include "operator/plan/coscheduling.h"
#include "operator/plan/simulate_fixture.h"

namespace dsm::plan {
namespace {

using testing::SizeIs;

class Coscheduled : public History {
 protected:
  Coscheduled() { sim.edit({{"placement", {{"schedulerName", "coscheduler"}}}}); }

  std::vector<std::string> bound() const {
    std::vector<std::string> names;
    for (const std::string& name : sim.pods()) {
      if (sim.pod(name)["spec"].contains("nodeName")) names.push_back(name);
    }
    return names;
  }
  bool named(const std::string& pod) const {
    return sim.pod(pod)["metadata"]["labels"].contains(kPodGroupLabel);
  }
};

TEST_F(Coscheduled, a_group_that_has_no_room_as_a_whole_holds_nothing_and_waits) {
  sim.install_pod_groups();
  sim.room = 3;
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.children("PodGroup"), SizeIs(2));
  EXPECT_THAT(bound(), ElementsAre("A0.0", "A0.1"));
  EXPECT_THAT(sim.message("Ready"), HasSubstr("no cpu"));
  // It holds nothing, so nothing is given back.
  sim.forget_history();
  sim.run(400);
  EXPECT_THAT(sim.history(), IsEmpty());
  EXPECT_THAT(bound(), ElementsAre("A0.0", "A0.1"));
  sim.room = 4;
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
}

TEST_F(Coscheduled, without_the_plugin_half_a_group_gives_back_what_it_holds) {
  sim.room = 3;
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.children("PodGroup"), IsEmpty());
  EXPECT_THAT(bound(), ElementsAre("A0.0", "A0.1", "A1.0"));
  sim.run(301);
  EXPECT_THAT(sim.events(), Contains("GroupRemoved"));
  EXPECT_EQ(sim.status()["backoff"]["reason"], "Unschedulable");
}

TEST_F(Coscheduled, a_lost_pod_comes_back_into_the_pod_group_of_its_group) {
  sim.install_pod_groups();
  ready();
  sim.remove_pod("A0.1");
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
  EXPECT_TRUE(named("A0.1"));
}

TEST_F(Coscheduled, the_plugin_that_comes_later_is_for_groups_that_are_made_later) {
  ready();
  EXPECT_FALSE(named("A0.0"));
  sim.install_pod_groups();
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.history(), IsEmpty());
  EXPECT_THAT(sim.children("PodGroup"), IsEmpty());
  // Alone among its group to name one, a pod would never get a node.
  sim.remove_pod("A0.1");
  EXPECT_TRUE(sim.settle());
  EXPECT_FALSE(named("A0.1"));
  sim.edit({{"image", "worker:2"}});
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.pods(), ElementsAre("B0.0", "B0.1", "B1.0", "B1.1"));
  EXPECT_TRUE(named("B0.0") && named("B1.1"));
  EXPECT_THAT(sim.children("PodGroup"), SizeIs(2));
}

TEST_F(Coscheduled, a_plugin_that_goes_and_comes_again_leaves_the_groups_as_they_are) {
  sim.install_pod_groups();
  ready();
  sim.install_pod_groups(false);
  sim.remove_pod("A0.1");
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.children("PodGroup"), IsEmpty());
  sim.install_pod_groups();
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.children("PodGroup"), SizeIs(2));
  sim.remove_pod("A0.0");
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
}

TEST_F(Coscheduled, pod_groups_go_with_their_groups) {
  sim.install_pod_groups();
  ready();
  sim.scale(1);
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.children("PodGroup"), SizeIs(1));
  sim.scale(0);
  EXPECT_TRUE(sim.settle());
  EXPECT_THAT(sim.children("PodGroup"), IsEmpty());
}

}  // namespace
}  // namespace dsm::plan
