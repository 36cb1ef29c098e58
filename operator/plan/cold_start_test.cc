#include "operator/plan/cold_start.h"

#include <gtest/gtest.h>

#include <deque>
#include <stdexcept>

#include "operator/plan/simulate.h"

namespace dsm::plan {
namespace {

class ColdStart : public testing::Test {
 protected:
  // A ready group whose pods were made together and became ready after these times.
  std::vector<PodView>& group(const std::string& name, std::vector<int> after_s) {
    std::vector<PodView>& pods = pods_.emplace_back();
    for (const int s : after_s) {
      PodView pod;
      pod.created = kBegin;
      pod.ready_at = kBegin + Seconds(s);
      pods.push_back(pod);
    }
    names_.push_back(name);
    return pods;
  }
  int measured(int known) {
    before.cold_start_seconds = known;
    std::vector<Group> groups;
    for (std::size_t i = 0; i < pods_.size(); ++i) {
      Group one;
      one.name = names_[i];
      one.ready = ready;
      for (const PodView& pod : pods_[i]) one.pods.push_back(&pod);
      groups.push_back(std::move(one));
    }
    return cold_start_seconds(before, groups);
  }

  const WallTime kBegin = from_rfc3339("2026-01-01T00:00:00Z");
  bool ready = true;
  api::ModelStatus before;

 private:
  std::deque<std::vector<PodView>> pods_;
  std::vector<std::string> names_;
};

TEST_F(ColdStart, is_from_the_first_pod_that_is_made_to_the_last_that_is_ready) {
  EXPECT_EQ(measured(0), 0) << "nothing to measure";
  auto& pods = group("a", {30, 42, 35});
  EXPECT_EQ(measured(0), 42);
  pods[1].created -= Seconds(5);
  EXPECT_EQ(measured(0), 47);
}

// In a queue a group waits for others to end, which says nothing about the next start.
TEST_F(ColdStart, begins_with_the_node_for_a_pod_that_waited_in_a_queue) {
  auto& pods = group("a", {642, 630});
  for (PodView& pod : pods) {
    pod.queued = true;
    pod.scheduled = kBegin + Seconds(600);
  }
  EXPECT_EQ(measured(0), 42);
}

TEST_F(ColdStart, moves_half_way_and_only_when_it_is_more_than_a_quarter_off) {
  auto& pods = group("a", {0});
  struct Row {
    int known, measured, then;
  };
  for (const Row& row : {Row{0, 60, 60}, Row{60, 60, 60}, Row{60, 75, 60}, Row{60, 76, 68},
                         Row{60, 45, 60}, Row{60, 44, 52}, Row{60, 10, 35}, Row{1, 2, 1}}) {
    pods[0].ready_at = kBegin + Seconds(row.measured);
    EXPECT_EQ(measured(row.known), row.then) << row.known << " then " << row.measured;
  }
}

TEST_F(ColdStart, of_several_groups_each_counts_and_each_once) {
  group("a", {100});
  group("b", {100});
  EXPECT_EQ(measured(20), 80);
  before.groups.resize(2);
  before.groups[0].name = "a";
  before.groups[0].served = true;
  before.groups[1].name = "b";
  EXPECT_EQ(measured(20), 60) << "a has served before, b has not";
  before.groups[1].served = true;
  EXPECT_EQ(measured(20), 20);
}

TEST_F(ColdStart, a_start_with_faults_or_without_times_says_nothing) {
  auto& pods = group("a", {50, 50});
  pods[1].restarts = 1;
  EXPECT_EQ(measured(20), 20);
  pods[1].restarts = 0;
  pods[1].ready_at.reset();
  EXPECT_EQ(measured(20), 20);
  pods[1].ready_at = kBegin;
  pods[1].created = WallTime();
  EXPECT_EQ(measured(20), 20);
  pods[1].created = kBegin;
  ready = false;
  EXPECT_EQ(measured(20), 20);
  ready = true;
  EXPECT_EQ(measured(20), 35);
}

TEST_F(ColdStart, is_bounded) {
  auto& pods = group("a", {3 * kLongestColdStart});
  EXPECT_EQ(measured(0), kLongestColdStart);
  EXPECT_EQ(measured(99 * kLongestColdStart), kLongestColdStart) << "whatever the status says";
  EXPECT_EQ(measured(-7), kLongestColdStart);
  pods[0].ready_at = kBegin - Seconds(9);
  EXPECT_EQ(measured(0), 1);
}

nlohmann::json spec() {
  return {{"model", {{"uri", "image:///models/deepseek-tiny"}}},
          {"replicas", 1},
          {"scaling", {{"maxReplicas", 9}}}};
}

class ColdStartSimulation : public testing::Test {
 protected:
  const nlohmann::json& policy() const {
    for (const nlohmann::json& child : sim.children()) {
      if (child["kind"] == "HorizontalPodAutoscaler") {
        return child["spec"]["behavior"]["scaleUp"]["policies"][0];
      }
    }
    throw std::logic_error("no autoscaler");
  }
  void TearDown() override { EXPECT_TRUE(sim.breaches().empty()); }

  Simulation sim{spec()};
};

TEST_F(ColdStartSimulation, is_in_the_status_and_in_the_autoscaler) {
  sim.load_s = 60;
  sim.run(100);
  const int first = sim.status()["coldStartSeconds"];
  EXPECT_GE(first, 60);
  EXPECT_LE(first, 65);
  EXPECT_EQ(policy()["periodSeconds"], first);
  // Groups that are as quick as those before them change nothing.
  sim.scale(3);
  sim.run(100);
  EXPECT_EQ(sim.status()["ready"], "3/3");
  EXPECT_EQ(sim.status()["coldStartSeconds"], first);
  sim.load_s = 200;
  sim.scale(4);
  sim.run(250);
  EXPECT_EQ(sim.status()["ready"], "4/4");
  const int slower = sim.status()["coldStartSeconds"];
  EXPECT_GT(slower, 100);
  EXPECT_EQ(policy()["periodSeconds"], slower);
  const int writes = sim.writes();
  sim.run(900);
  EXPECT_EQ(sim.writes(), writes);
}

TEST_F(ColdStartSimulation, a_group_that_comes_back_is_not_a_start) {
  EXPECT_TRUE(sim.settle());
  const int first = sim.status()["coldStartSeconds"];
  sim.run(600);
  sim.crash_pod("A0.0");
  EXPECT_TRUE(sim.settle());
  EXPECT_EQ(sim.status()["coldStartSeconds"], first);
}

}  // namespace
}  // namespace dsm::plan
