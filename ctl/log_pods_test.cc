#include "ctl/log_pods.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ctl/testing/example.h"

namespace dsm::ctl {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::Example;
using ::testing::HasSubstr;

class LogPods : public ::testing::Test {
 protected:
  // Prefixes of those that are chosen.
  std::vector<std::string> chosen(const LogChoice& choice) const {
    const auto pods = choose_log_pods(example.model, example.pods, choice);
    EXPECT_TRUE(pods) << pods.error().message;
    std::vector<std::string> prefixes;
    for (const LogPod& pod : pods.value()) prefixes.push_back(pod.prefix);
    return prefixes;
  }

  Example example;
  std::string revision = example.model["status"]["updatedRevision"];
};

TEST_F(LogPods, all_are_in_the_order_of_group_and_rank) {
  std::ranges::reverse(example.pods);
  EXPECT_THAT(chosen({}), ElementsAre("0/0 ", "0/1 ", "1/0 ", "1/1 "));
}

TEST_F(LogPods, a_group_is_a_number_or_a_name) {
  for (const std::string& group : {std::string("1"), revision + "-1", "r1-" + revision + "-1"}) {
    EXPECT_THAT(chosen({group, -1}), ElementsAre("1/0 ", "1/1 ")) << group;
  }
  EXPECT_THAT(chosen({"1", 1}), ElementsAre("1/1 "));
}

TEST_F(LogPods, with_two_revisions_the_prefix_says_which) {
  json spec = testing::example_spec();
  spec["model"]["revision"] = "b";
  const plan::Revision other = testing::revision_of(spec, 2);
  example.pods.push_back(testing::pod_object(other, 0, 0, true));
  EXPECT_THAT(chosen({"0", 0}),
              ::testing::UnorderedElementsAre(revision + "-0/0 ", other.name + "-0/0 "));
}

TEST_F(LogPods, a_pod_may_hold_several_ranks) {
  const plan::Revision wide = testing::revision_of(
      {{"model", {{"uri", "image:///m"}}}, {"parallelism", {{"tensor", 4}, {"ranksPerPod", 2}}}},
      1);
  example.pods = {testing::pod_object(wide, 0, 0, true), testing::pod_object(wide, 0, 1, true)};
  EXPECT_THAT(chosen({}), ElementsAre("0/0-1 ", "0/2-3 "));
  EXPECT_THAT(chosen({"", 3}), ElementsAre("0/2-3 "));
  const plan::Revision alone = testing::revision_of(
      {{"model", {{"uri", "image:///m"}}}, {"parallelism", {{"tensor", 4}, {"ranksPerPod", 4}}}},
      1);
  example.pods = {testing::pod_object(alone, 0, 0, true)};
  EXPECT_THAT(chosen({"", 3}), ElementsAre("0/0-3 "));
}

TEST_F(LogPods, what_there_is_is_said_where_nothing_fits) {
  const auto none = choose_log_pods(example.model, example.pods, {"7", -1});
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().kind, ErrorKind::kNotFound);
  EXPECT_THAT(none.error().message,
              AllOf(HasSubstr("r1-" + revision + "-0-0"), HasSubstr("r1-" + revision + "-1-1")));
  EXPECT_THAT(choose_log_pods(example.model, {}, {}).error().message, HasSubstr("no pods"));
}

TEST(LinePrefixer, puts_the_prefix_before_whole_lines) {
  LinePrefixer lines("0/1 ");
  EXPECT_EQ(lines.add("one\ntw"), "0/1 one\n");
  EXPECT_EQ(lines.add("o\n\nthree"), "0/1 two\n0/1 \n");
  EXPECT_EQ(lines.finish(), "0/1 three\n");
  EXPECT_EQ(lines.finish(), "");
}

TEST(LinePrefixer, does_not_hold_an_endless_line) {
  LinePrefixer lines("p ");
  const std::string out = lines.add(std::string(LinePrefixer::kLongestLine + 1, 'x'));
  EXPECT_EQ(out.size(), LinePrefixer::kLongestLine + 3);
  EXPECT_EQ(lines.finish(), "p x\n");
}

}  // namespace
}  // namespace dsm::ctl
