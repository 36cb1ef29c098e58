#include "ctl/tree.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ctl/testing/example.h"
#include "ctl/tree_text.h"

namespace dsm::ctl {
namespace {

using nlohmann::json;
using testing::Example;
using ::testing::HasSubstr;
using testing::kNow;
using ::testing::Not;

std::vector<plan::PodView> views(const std::vector<json>& pods) {
  std::vector<plan::PodView> out;
  out.reserve(pods.size());
  for (const json& pod : pods) out.push_back(plan::pod_view(pod));
  return out;
}

class Tree : public ::testing::Test {
 protected:
  std::string text(const Style& style = {}) const {
    return tree_text(tree_of(example.model, views(example.pods)), kNow, style);
  }
  std::string revision() const { return example.model["status"]["updatedRevision"]; }
  json& group(std::size_t i) { return example.model["status"]["groups"][i]; }

  Example example;
};

TEST_F(Tree, on_a_pipe_it_is_plain_text) {
  const std::string r = revision();
  EXPECT_EQ(text(), "r1  namespace team-a  ready 2/2  queue 3  revision " + r + "  age 4m\n" +
                        "|-- Ready        True     AllGroupsReady: 2 of 2 groups answer\n"
                        "|-- Degraded     False    AsWanted: nothing is wrong\n"
                        "|-- r1-" +
                        r + "-0  Ready\n" + "|   |-- r1-" + r + "-0-0  leader  Ready  node-1\n" +
                        "|   `-- r1-" + r + "-0-1  worker  Ready  node-2\n" + "`-- r1-" + r +
                        "-1  Ready\n" + "    |-- r1-" + r + "-1-0  leader  Ready  node-1\n" +
                        "    `-- r1-" + r + "-1-1  worker  Ready  node-2\n");
}

TEST_F(Tree, loading_is_a_bar_of_bytes_of_bytes) {
  group(1)["phase"] = "Loading";
  group(1)["reason"] = "LoadingWeights";
  group(1)["message"] = "weights: 1.0 GB of 4.0 GB loaded";
  group(1)["loadedBytes"] = 1'000'000'000;
  group(1)["totalBytes"] = 4'000'000'000;
  EXPECT_THAT(text(), HasSubstr("Loading  [#####...............]  25%  LoadingWeights: weights: "
                                "1.0 GB of 4.0 GB loaded"));
  EXPECT_THAT(text({.unicode = true}), HasSubstr("[█████░░░░░░░░░░░░░░░]"));
}

TEST_F(Tree, a_terminal_has_colours_and_its_width) {
  const std::string painted = text({.colour = true, .unicode = true, .width = 30});
  EXPECT_THAT(painted, HasSubstr("\x1b[32m"));
  EXPECT_THAT(painted, HasSubstr("├── "));
  for (const std::string& line : {text({.width = 30})}) {
    std::size_t begin = 0;
    for (std::size_t end = line.find('\n'); end != std::string::npos;
         begin = end + 1, end = line.find('\n', begin)) {
      EXPECT_LE(end - begin, 30U);
    }
  }
}

TEST_F(Tree, a_pod_says_what_stands_in_its_way) {
  json& status = example.pods[3]["status"];
  status["conditions"] = {{{"type", "PodScheduled"},
                           {"status", "False"},
                           {"reason", "Unschedulable"},
                           {"message", "0/2 nodes: no cpu"}}};
  status.erase("containerStatuses");
  example.pods[3]["spec"].erase("nodeName");
  EXPECT_THAT(text(), HasSubstr("worker  Unschedulable  no node  0/2 nodes: no cpu\n"));
  example.pods[2]["status"]["containerStatuses"][0] = {
      {"restartCount", 4},
      {"state", {{"waiting", {{"reason", "CrashLoopBackOff"}}}}},
      {"lastState",
       {{"terminated", {{"exitCode", 1}, {"reason", "Error"}, {"message", "no such model"}}}}}};
  EXPECT_THAT(text(), HasSubstr("CrashLoopBackOff  node-1  4 restarts  last exit code 1 (Error): "
                                "no such model\n"));
}

TEST_F(Tree, pods_that_the_status_does_not_have_yet_are_shown) {
  example.model.erase("status");
  EXPECT_THAT(text(), HasSubstr("-1  not in the status yet\n"));
  EXPECT_THAT(text(), HasSubstr("the operator has not looked at the last change yet"));
}

TEST_F(Tree, a_rollout_and_a_pause_are_in_the_first_line) {
  example.model["status"]["updatedRevision"] = "00000000";
  example.model["spec"]["rollout"] = {{"paused", true}};
  EXPECT_THAT(text(), HasSubstr("revision " +
                                example.model["status"]["currentRevision"].get<std::string>() +
                                " -> 00000000"));
  EXPECT_THAT(text(), HasSubstr("  paused"));
}

TEST_F(Tree, that_a_model_shall_sleep_is_in_the_first_line) {
  EXPECT_THAT(text(), Not(HasSubstr("to sleep")));
  example.model["spec"]["sleep"] = true;
  EXPECT_THAT(text(), HasSubstr("  to sleep"));
}

TEST_F(Tree, pods_of_other_models_are_not_shown) {
  example.pods[0]["metadata"]["ownerReferences"][0]["uid"] = "another";
  EXPECT_THAT(text(), Not(HasSubstr("-0-0")));
}

TEST_F(Tree, texts_of_the_cluster_do_not_steer_the_terminal) {
  group(0)["phase"] = "Starting";
  group(0)["message"] =
      "bad\x1b[2J\nline\xc2\x9b"
      "1m";
  EXPECT_THAT(text(), HasSubstr("bad [2J line 1m\n"));
}

TEST_F(Tree, programs_read_json) {
  const json tree = to_json(tree_of(example.model, views(example.pods)));
  EXPECT_EQ(tree["status"]["queueDepth"], 3);
  EXPECT_EQ(tree["groups"][1]["pods"][0]["role"], "leader");
  EXPECT_EQ(tree["groups"][1]["pods"][0]["state"], "Ready");
}

TEST(TreeOf, survives_a_model_of_any_shape) {
  for (const char* shape : {"{}", "[]", "null", R"({"metadata": 3, "spec": [], "status": "x"})"}) {
    EXPECT_TRUE(tree_of(json::parse(shape), {}).groups.empty()) << shape;
  }
}

TEST(Text, ages_have_one_unit) {
  const auto age = [](Seconds seconds) { return age_text(kNow, kNow + seconds); };
  EXPECT_EQ(age(Seconds(119)), "119s");
  EXPECT_EQ(age(Seconds(120)), "2m");
  EXPECT_EQ(age(Seconds(7200)), "2h");
  EXPECT_EQ(age(Seconds(172800)), "2d");
  EXPECT_EQ(age(Seconds(-5)), "0s");
}

TEST(Text, columns_of_a_table_are_as_wide_as_their_widest_cell) {
  EXPECT_EQ(table({{"A", "B"}, {"long", "x"}}, {}), "A      B\nlong   x\n");
}

}  // namespace
}  // namespace dsm::ctl
