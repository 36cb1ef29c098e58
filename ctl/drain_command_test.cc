#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "ctl/testing/fake_cluster.h"

namespace dsm::ctl {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using testing::FakeCluster;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

// A clock on which every wait is over at once; the world goes on meanwhile.
class HurriedClock final : public Clock {
 public:
  TimePoint now() const override { return now_; }
  WallTime wall_now() const override { return testing::kNow; }
  void wait_until(std::condition_variable& /*cv*/, std::unique_lock<std::mutex>& /*lock*/,
                  TimePoint deadline) override {
    now_ = deadline;
    ++waits_;
    if (meanwhile) meanwhile(waits_);
  }

  std::function<void(int wait)> meanwhile;  // which wait it is, from 1

 private:
  TimePoint now_;
  int waits_ = 0;
};

class Drains : public ::testing::Test {
 protected:
  Result<int> run_it(const DrainCommand& command) { return run(command, cluster, fake.io); }
  std::string group(int number) const {
    return "r1-" + fake.example.model["status"]["updatedRevision"].get<std::string>() + "-" +
           std::to_string(number);
  }
  int asked() const {
    int count = 0;
    for (const json& pod : fake.example.pods) count += plan::pod_view(pod).drain ? 1 : 0;
    return count;
  }
  void remove_pods_of(int number) {
    std::erase_if(fake.example.pods, [&](const json& pod) {
      return pod["metadata"]["name"].get<std::string>().starts_with(group(number) + "-");
    });
  }
  void say(int number, const char* reason, const char* message) {
    json& said = fake.example.model["status"]["groups"][static_cast<std::size_t>(number)];
    said["reason"] = reason;
    said["message"] = message;
  }
  void block(bool blocked) {
    json& degraded = fake.example.model["status"]["conditions"][1];
    degraded["status"] = blocked ? "True" : "False";
    degraded["reason"] = blocked ? "DrainBlocked" : "AsWanted";
    degraded["message"] = blocked ? "no node had room" : "nothing is wrong";
  }

  FakeCluster fake;
  HurriedClock clock;
  kube::Client client{fake.transport, clock, {}};
  Cluster cluster{client, "team-a"};
};

TEST_F(Drains, every_pod_of_the_group_is_asked_and_nothing_else_is_written) {
  const auto code = run_it({.model = "r1", .group = "0"});
  ASSERT_TRUE(code) << code.error().message;
  EXPECT_EQ(asked(), 2);
  EXPECT_EQ(fake.transport.writes().size(), 2U);
  EXPECT_THAT(fake.out.str(), AllOf(HasSubstr("group " + group(0) + " is asked to go"),
                                    HasSubstr("dsmctl status r1 -n team-a --watch")));
}

TEST_F(Drains, cancel_takes_it_back) {
  ASSERT_TRUE(run_it({.model = "r1", .group = "1"}));
  ASSERT_TRUE(run_it({.model = "r1", .group = "1", .cancel = true}));
  EXPECT_EQ(asked(), 0);
  EXPECT_THAT(fake.out.str(), HasSubstr("group " + group(1) + " may stay"));
  ASSERT_TRUE(run_it({.model = "r1", .group = "1", .cancel = true}));
  EXPECT_THAT(fake.out.str(), HasSubstr("nobody asks group"));
  EXPECT_EQ(fake.transport.writes().size(), 4U);
}

TEST_F(Drains, who_waits_is_told_each_change_once_until_the_group_is_gone) {
  clock.meanwhile = [&](int wait) {
    if (wait == 2) say(0, "GroupDraining", "it serves");
    if (wait == 5) remove_pods_of(0);
  };
  const auto code = run_it({.model = "r1", .group = "0", .wait = true});
  ASSERT_TRUE(code) << code.error().message;
  EXPECT_EQ(fake.out.str(), "group " + group(0) +
                                " is asked to go: it serves until another one does in its place\n" +
                                group(0) + ": Ready, the operator does not move it yet\n" +
                                group(0) + ": Ready, GroupDraining: it serves\n" + group(0) +
                                ": has gone\n");
}

TEST_F(Drains, a_time_out_says_what_the_operator_says) {
  block(true);
  const auto code = run_it({.model = "r1", .group = "0", .wait = true, .timeout_s = 30});
  ASSERT_FALSE(code);
  EXPECT_THAT(code.error().message, AllOf(HasSubstr("after 30 s there is still " + group(0)),
                                          HasSubstr("DrainBlocked: no node had room"),
                                          HasSubstr("--cancel takes it back")));
}

TEST_F(Drains, unknown_names_are_said_and_nothing_is_written) {
  EXPECT_THAT(run_it({.model = "r2", .group = "0"}).error().message,
              HasSubstr("there is no DeepSeekModel r2"));
  EXPECT_THAT(run_it({.model = "r1", .group = "7"}).error().message,
              AllOf(HasSubstr("r1 has no group 7"), HasSubstr(group(1))));
  EXPECT_THAT(run_it({.node = "node-9"}).error().message, HasSubstr("there is no node node-9"));
  EXPECT_EQ(asked(), 0);
}

// Both groups have a pod on it.
TEST_F(Drains, a_node_is_cordoned_and_its_groups_are_followed_until_none_is_left) {
  clock.meanwhile = [&](int wait) {
    if (wait == 1) block(true);
    if (wait == 3) block(false);
    if (wait == 4) remove_pods_of(0);
    if (wait == 5) say(1, "NodeDraining", "node node-1 is cordoned");
    if (wait == 6) remove_pods_of(1);
  };
  const auto code = run_it({.node = "node-1"});
  ASSERT_TRUE(code) << code.error().message;
  EXPECT_EQ(fake.node["spec"]["unschedulable"], true);
  EXPECT_EQ(asked(), 0) << "the operator sees the cordon";
  const std::string first = "team-a/" + group(0);
  const std::string second = "team-a/" + group(1);
  EXPECT_THAT(fake.out.str(),
              AllOf(HasSubstr("node node-1 is cordoned\n"),
                    HasSubstr(first + ": DrainBlocked: no node had room\n"),
                    HasSubstr(first + ": has gone\n"),
                    HasSubstr(second + ": Ready, NodeDraining: node node-1 is cordoned\n"),
                    HasSubstr("no pod of a model is on node node-1; it stays cordoned")));
}

TEST_F(Drains, cancel_of_a_node_lets_pods_there_again) {
  fake.node["spec"]["unschedulable"] = true;
  const auto code = run_it({.node = "node-1", .cancel = true});
  ASSERT_TRUE(code) << code.error().message;
  EXPECT_FALSE(fake.node["spec"].contains("unschedulable"));
}

TEST_F(Drains, pods_of_a_model_that_is_deleted_are_waited_for) {
  fake.more[std::string(FakeCluster::kModels) + "/r1"] =
      kube::testing::status_answer(404, "NotFound", "not found");
  clock.meanwhile = [&](int wait) {
    if (wait == 2) fake.example.pods.clear();
  };
  const auto code = run_it({.node = "node-1"});
  ASSERT_TRUE(code) << code.error().message;
}

}  // namespace
}  // namespace dsm::ctl
