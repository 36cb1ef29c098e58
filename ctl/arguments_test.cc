#include "ctl/arguments.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace dsm::ctl {
namespace {

using testing::AllOf;
using testing::HasSubstr;

Result<Arguments> parse(std::vector<const char*> words) {
  words.insert(words.begin(), "dsmctl");
  return parse_arguments(static_cast<int>(words.size()), words.data());
}

template <typename T>
T command(std::vector<const char*> words) {
  const auto arguments = parse(std::move(words));
  EXPECT_TRUE(arguments) << arguments.error().message;
  return std::get<T>(arguments.value().command);
}

std::string mistake(std::vector<const char*> words) {
  const auto arguments = parse(std::move(words));
  if (arguments) return "it was accepted";
  EXPECT_EQ(arguments.error().kind, ErrorKind::kInvalid);
  return arguments.error().message;
}

TEST(Arguments, status_is_of_one_model_or_of_all) {
  EXPECT_EQ(command<StatusCommand>({"status"}).model, "");
  const auto one = command<StatusCommand>({"status", "r1", "--watch", "-o", "json"});
  EXPECT_EQ(one.model, "r1");
  EXPECT_TRUE(one.watch);
  EXPECT_TRUE(one.json);
  EXPECT_TRUE(command<StatusCommand>({"status", "-A"}).all_namespaces);
  EXPECT_THAT(mistake({"status", "r1", "-A"}), HasSubstr("--all-namespaces"));
  EXPECT_THAT(mistake({"status", "-o", "yaml"}), HasSubstr("yaml"));
}

TEST(Arguments, the_connection_stands_before_or_after_the_command) {
  const auto before = parse({"-n", "team-a", "--context", "prod", "status"});
  ASSERT_TRUE(before) << before.error().message;
  EXPECT_EQ(before->connection.ns, "team-a");
  EXPECT_EQ(before->connection.context, "prod");
  const auto after = parse({"status", "--namespace=team-b", "--kubeconfig", "/k"});
  ASSERT_TRUE(after) << after.error().message;
  EXPECT_EQ(after->connection.ns, "team-b");
  EXPECT_EQ(after->connection.kubeconfig, "/k");
}

TEST(Arguments, logs_have_bounds) {
  const auto plain = command<LogsCommand>({"logs", "r1"});
  EXPECT_EQ(plain.tail, 100);
  EXPECT_EQ(plain.rank, -1);
  const auto all = command<LogsCommand>(
      {"logs", "r1", "--group", "0", "--rank", "1", "--follow", "--tail", "-1"});
  EXPECT_EQ(all.group, "0");
  EXPECT_EQ(all.rank, 1);
  EXPECT_EQ(all.tail, -1);
  EXPECT_TRUE(all.follow);
  EXPECT_THAT(mistake({"logs", "r1", "--rank", "8"}), HasSubstr("8"));
  EXPECT_THAT(mistake({"logs", "r1", "--tail", "few"}), HasSubstr("--tail"));
  EXPECT_THAT(mistake({"logs"}), HasSubstr("MODEL"));
}

TEST(Arguments, pause_and_resume_are_one_command) {
  EXPECT_TRUE(command<PauseCommand>({"pause", "r1"}).paused);
  EXPECT_FALSE(command<PauseCommand>({"resume", "r1"}).paused);
  EXPECT_EQ(command<PauseCommand>({"resume", "r1"}).model, "r1");
}

TEST(Arguments, rollback_lists_or_goes) {
  EXPECT_EQ(command<RollbackCommand>({"rollback", "r1", "--to", "5f2c19aa"}).to, "5f2c19aa");
  EXPECT_TRUE(command<RollbackCommand>({"rollback", "r1", "--list"}).list);
  EXPECT_THAT(mistake({"rollback", "r1", "--list", "--to", "5f2c19aa"}), HasSubstr("--to"));
}

TEST(Arguments, rollback_keeps_the_spec_or_takes_that_back) {
  EXPECT_TRUE(command<RollbackCommand>({"rollback", "r1", "--keep-spec"}).keep_spec);
  EXPECT_TRUE(command<RollbackCommand>({"rollback", "r1", "--undo"}).undo);
  EXPECT_THAT(mistake({"rollback", "r1", "--keep-spec", "--to", "5f2c19aa"}), HasSubstr("--to"));
  EXPECT_THAT(mistake({"rollback", "r1", "--keep-spec", "--undo"}), HasSubstr("--undo"));
}

TEST(Arguments, drain_is_of_a_group_or_of_a_node) {
  const auto group = command<DrainCommand>({"drain", "r1", "0"});
  EXPECT_EQ(group.model, "r1");
  EXPECT_EQ(group.group, "0");
  EXPECT_FALSE(group.wait);
  EXPECT_TRUE(command<DrainCommand>({"drain", "r1", "0", "--wait"}).wait);
  const auto timed = command<DrainCommand>({"drain", "r1", "0", "--timeout", "10m"});
  EXPECT_TRUE(timed.wait);
  EXPECT_EQ(timed.timeout_s, 600);
  EXPECT_EQ(command<DrainCommand>({"drain", "--node", "n1", "--timeout", "90"}).timeout_s, 90);
  EXPECT_EQ(command<DrainCommand>({"drain", "--node", "n1"}).node, "n1");
  EXPECT_THAT(mistake({"drain"}), HasSubstr("MODEL GROUP, or --node NODE"));
  EXPECT_THAT(mistake({"drain", "r1"}), HasSubstr("GROUP"));
  EXPECT_THAT(mistake({"drain", "r1", "0", "--node", "n1"}), HasSubstr("--node"));
  EXPECT_THAT(mistake({"drain", "--node", "n1", "--timeout", "soon"}), HasSubstr("--timeout"));
}

TEST(Arguments, plan_and_bundle_need_their_file) {
  EXPECT_EQ(command<PlanCommand>({"plan", "-f", "-", "--offline"}).file, "-");
  EXPECT_THAT(mistake({"plan"}), HasSubstr("--filename"));
  EXPECT_EQ(command<BundleCommand>({"support-bundle", "r1", "-o", "b.tar.gz"}).file, "b.tar.gz");
  EXPECT_THAT(mistake({"support-bundle", "r1"}), HasSubstr("--output"));
}

TEST(Arguments, fit_needs_a_model_and_a_memory) {
  const auto all = command<FitCommand>({"fit", "--config", "c.json", "--memory", "80Gi"});
  EXPECT_EQ(all.tensor, 0);
  EXPECT_FALSE(all.gpu);
  const auto one = command<FitCommand>({"fit", "--config", "-", "--memory", "80Gi", "--device",
                                        "gpu", "--tensor", "8", "--context", "32768"});
  EXPECT_TRUE(one.gpu);
  EXPECT_EQ(one.tensor, 8);
  EXPECT_EQ(one.context, 32768);
  EXPECT_EQ(one.weight_bits, 0);
  EXPECT_EQ(
      command<FitCommand>({"fit", "--config", "-", "--memory", "8Gi", "--quantization", "INT4"})
          .weight_bits,
      4);
  EXPECT_THAT(mistake({"fit", "--config", "-", "--memory", "8Gi", "--quantization", "int4"}),
              HasSubstr("--quantization"));
  EXPECT_THAT(mistake({"fit", "--config", "c.json"}), HasSubstr("--memory"));
  EXPECT_THAT(mistake({"fit", "--config", "c.json", "--memory", "1Gi", "--tensor", "3"}),
              HasSubstr("--tensor"));
}

TEST(Arguments, a_mistake_points_at_the_help_of_its_command) {
  EXPECT_THAT(mistake({"logs", "r1", "--colour"}),
              AllOf(HasSubstr("--colour"), HasSubstr("dsmctl logs --help")));
  EXPECT_THAT(mistake({"scale", "r1"}), HasSubstr("dsmctl --help"));
  EXPECT_THAT(mistake({}), HasSubstr("dsmctl --help"));
}

TEST(Arguments, each_command_has_help) {
  EXPECT_THAT(command<PrintCommand>({"--help"}).text,
              AllOf(HasSubstr("support-bundle"), HasSubstr("Exit codes")));
  EXPECT_THAT(command<PrintCommand>({"logs", "--help"}).text,
              AllOf(HasSubstr("--follow"), HasSubstr("MODEL"), HasSubstr("--namespace")));
}

TEST(Arguments, sleep_and_wake_are_one_command) {
  EXPECT_TRUE(command<SleepCommand>({"sleep", "r1"}).sleep);
  EXPECT_FALSE(command<SleepCommand>({"wake", "r1"}).sleep);
  EXPECT_EQ(command<SleepCommand>({"wake", "r1"}).model, "r1");
}

TEST(Arguments, completion_knows_every_command_and_its_options) {
  const std::string script = command<PrintCommand>({"completion", "bash"}).text;
  for (const char* name :
       {"status", "plan", "fit", "logs", "restart", "rollback", "pause", "resume", "drain", "sleep",
        "wake", "support-bundle", "version", "completion"}) {
    EXPECT_THAT(script, HasSubstr(name));
  }
  EXPECT_THAT(script, HasSubstr("--all-namespaces"));
  EXPECT_THAT(mistake({"completion", "fish"}), HasSubstr("fish"));
}

}  // namespace
}  // namespace dsm::ctl
