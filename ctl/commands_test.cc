#include "ctl/commands.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>

#include "ctl/testing/fake_cluster.h"

namespace dsm::ctl {
namespace {

using kube::testing::json_answer;
using kube::testing::status_answer;
using nlohmann::json;
using ::testing::AllOf;
using testing::FakeCluster;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class Commands : public ::testing::Test {
 protected:
  template <typename T>
  std::string output_of(const T& command) {
    const Result<int> code = run(command, fake.cluster, fake.io);
    EXPECT_TRUE(code) << code.error().message;
    EXPECT_EQ(code.value_or(-1), kExitDone);
    return std::exchange(fake.out, std::ostringstream()).str();
  }
  template <typename T>
  Error error_of(const T& command) {
    const Result<int> code = run(command, fake.cluster, fake.io);
    EXPECT_FALSE(code) << fake.out.str();
    return code ? Error{} : code.error();
  }
  // The body of the only write so far.
  json written() const {
    const auto writes = fake.transport.writes();
    EXPECT_EQ(writes.size(), 1U);
    EXPECT_THAT(writes.at(0).target, HasSubstr("deepseekmodels/r1?"));
    return json::parse(writes.at(0).body);
  }
  std::string revision() const { return fake.example.model["status"]["updatedRevision"]; }
  kube::HttpResponse log(const std::string& text) { return {200, {}, text}; }
  std::string log_path(const std::string& group_and_index) const {
    return "/api/v1/namespaces/team-a/pods/r1-" + revision() + "-" + group_and_index + "/log";
  }

  FakeCluster fake;
};

TEST_F(Commands, status_shows_one_model_or_all) {
  EXPECT_THAT(
      output_of(StatusCommand{.model = "r1"}),
      AllOf(HasSubstr("r1  namespace team-a  ready 2/2"), HasSubstr("-1-1  worker  Ready")));
  EXPECT_THAT(output_of(StatusCommand{}), HasSubstr("r1  namespace team-a"));
  const json all = json::parse(output_of(StatusCommand{.json = true}));
  EXPECT_EQ(all["models"][0]["groups"].size(), 2U);
  EXPECT_THAT(fake.transport.writes(), IsEmpty());
}

TEST_F(Commands, a_name_that_is_not_there_is_said_with_what_to_do) {
  EXPECT_EQ(error_of(StatusCommand{.model = "r2"}).message,
            "there is no DeepSeekModel r2 in namespace team-a; dsmctl status -A shows all");
}

TEST_F(Commands, a_cluster_without_the_chart_is_told_apart) {
  fake.more[FakeCluster::kModels] = {404, {}, "404 page not found\n"};
  EXPECT_THAT(error_of(StatusCommand{}).message, HasSubstr("is the operator's chart installed?"));
}

TEST_F(Commands, a_server_that_does_not_answer_is_told_apart) {
  fake.transport.next(fail(ErrorKind::kTransient, "connection refused (https://c)"));
  EXPECT_THAT(error_of(StatusCommand{}).message,
              AllOf(HasSubstr("connection refused"), HasSubstr("--context")));
}

TEST_F(Commands, restart_writes_the_annotation_of_the_pods) {
  EXPECT_THAT(output_of(RestartCommand{"r1"}), HasSubstr("made anew, one after the other"));
  EXPECT_EQ(written(), json::parse(R"({"metadata": {"uid": "uid-r1"}, "spec": {"template":
      {"annotations": {"kubectl.kubernetes.io/restartedAt": "2026-01-02T12:00:00Z"}}}})"));
}

TEST_F(Commands, pause_writes_the_field_and_resume_takes_it_away) {
  EXPECT_THAT(output_of(PauseCommand{"r1", true}), HasSubstr("is paused; go on with"));
  EXPECT_EQ(written()["spec"], json::parse(R"({"rollout": {"paused": true}})"));
  EXPECT_THAT(output_of(PauseCommand{"r1", true}), HasSubstr("is paused already"));
  EXPECT_THAT(output_of(PauseCommand{"r1", false}), HasSubstr("goes on"));
  EXPECT_EQ(fake.transport.writes().size(), 2U);
}

TEST_F(Commands, a_crd_that_does_not_know_the_pause_is_said) {
  fake.unknown_fields = {"/spec/rollout/paused"};
  EXPECT_THAT(error_of(PauseCommand{"r1", true}).message,
              AllOf(HasSubstr("spec.rollout.paused"), HasSubstr("upgrade the operator's chart")));
}

TEST_F(Commands, sleep_writes_the_field_and_wake_takes_it_away) {
  EXPECT_THAT(output_of(SleepCommand{"r1", false}), HasSubstr("does not sleep"));
  EXPECT_THAT(output_of(SleepCommand{"r1", true}), HasSubstr("wake it with: dsmctl wake r1"));
  EXPECT_EQ(written()["spec"], json::parse(R"({"sleep": true})"));
  EXPECT_THAT(output_of(SleepCommand{"r1", true}), HasSubstr("sleeps already"));
  EXPECT_THAT(output_of(SleepCommand{"r1", false}), HasSubstr("r1 wakes"));
  EXPECT_EQ(fake.transport.writes().size(), 2U);
}

TEST_F(Commands, a_crd_that_does_not_know_sleep_is_said) {
  fake.unknown_fields = {"/spec/sleep"};
  EXPECT_THAT(error_of(SleepCommand{"r1", true}).message,
              AllOf(HasSubstr("spec.sleep"), HasSubstr("upgrade the operator's chart")));
}

TEST_F(Commands, rollback_shows_and_writes_the_way_back) {
  json spec = fake.example.model["spec"];
  spec["model"]["revision"] = "b";
  fake.example.model["spec"] = spec;
  fake.example.revisions.push_back(testing::revision_object(spec, 2));
  EXPECT_THAT(output_of(RollbackCommand{.model = "r1", .list = true}),
              AllOf(HasSubstr("wanted"), HasSubstr("serving")));
  EXPECT_THAT(output_of(RollbackCommand{.model = "r1", .dry_run = true}),
              HasSubstr("spec.model.revision: \"b\" -> \"a\""));
  EXPECT_THAT(fake.transport.writes(), IsEmpty());
  EXPECT_THAT(output_of(RollbackCommand{.model = "r1"}), HasSubstr("-> " + revision()));
  EXPECT_EQ(written()["spec"], json::parse(R"({"model": {"revision": "a"}})"));
}

TEST_F(Commands, logs_have_group_and_rank_before_each_line) {
  fake.more[log_path("0-0")] = log("first\nsecond\n");
  fake.more[log_path("0-1")] = log("third");
  EXPECT_EQ(output_of(LogsCommand{.model = "r1", .group = "0"}),
            "0/0 first\n0/0 second\n0/1 third\n");
  EXPECT_THAT(fake.transport.requests().back().target, HasSubstr("tailLines=100"));
}

TEST_F(Commands, a_log_that_cannot_be_read_does_not_hide_the_others) {
  fake.more[log_path("0-0")] = status_answer(400, "BadRequest", "container is waiting to start");
  fake.more[log_path("0-1")] = log("third\n");
  EXPECT_THAT(error_of(LogsCommand{.model = "r1", .group = "0"}).message,
              HasSubstr("container is waiting to start"));
  EXPECT_EQ(fake.out.str(), "0/1 third\n");
}

TEST_F(Commands, plan_tells_what_a_changed_manifest_would_do) {
  json manifest = fake.example.model;
  manifest.erase("status");
  manifest["spec"]["model"]["revision"] = "b";
  fake.in.str(manifest.dump());
  const auto code = run(PlanCommand{.file = "-"}, &fake.cluster, fake.io);
  ASSERT_TRUE(code) << code.error().message;
  EXPECT_EQ(*code, kExitDone);
  EXPECT_THAT(fake.out.str(), AllOf(HasSubstr("spec.model.revision: \"a\" -> \"b\""),
                                    HasSubstr("2 groups made, 2 removed, 0 kept")));
  EXPECT_THAT(fake.transport.writes(), IsEmpty());
}

TEST_F(Commands, plan_of_a_wrong_manifest_has_an_exit_code_of_its_own) {
  json manifest = fake.example.model;
  manifest["spec"]["parallelism"]["tensor"] = 3;
  fake.in.str(manifest.dump());
  const auto code = run(PlanCommand{.file = "-"}, &fake.cluster, fake.io);
  ASSERT_TRUE(code) << code.error().message;
  EXPECT_EQ(*code, kExitProblem);
  EXPECT_THAT(fake.out.str(), HasSubstr("wrong: spec.parallelism.tensor: is 3"));
}

TEST_F(Commands, plan_works_without_a_cluster) {
  json manifest = fake.example.model;
  manifest.erase("status");
  fake.in.str(manifest.dump());
  const auto code = run(PlanCommand{.file = "-", .offline = true}, nullptr, fake.io);
  ASSERT_TRUE(code) << code.error().message;
  EXPECT_THAT(fake.out.str(), AllOf(HasSubstr("new model"), HasSubstr("2 groups made")));
}

TEST_F(Commands, plan_says_whether_the_pods_have_enough_memory) {
  json manifest = fake.example.model;
  manifest.erase("status");
  manifest["spec"]["template"]["resources"]["limits"]["memory"] = "12Gi";
  PlanCommand command{.file = "-", .config = "sizing/models/r1-distill-qwen-7b.json"};
  command.offline = true;
  const auto plan = [&](const json& spec) {
    manifest["spec"].merge_patch(spec);
    fake.in.clear();
    fake.in.str(manifest.dump());
    fake.out.str("");
    const auto code = run(command, nullptr, fake.io);
    EXPECT_TRUE(code) << code.error().message;
    return code.value_or(-1);
  };
  EXPECT_EQ(plan({{"engine", {{"maxModelLen", 8192}}}}), kExitDone);
  EXPECT_THAT(fake.out.str(),
              AllOf(HasSubstr("|-- memory: a pod of 1 rank needs "), HasSubstr("2 groups made")));
  EXPECT_EQ(plan({{"engine", {{"maxModelLen", 131072}}}}), kExitProblem);
  EXPECT_THAT(fake.out.str(), HasSubstr("and has 12.0 GiB. Raise spec.template.resources"));
  // What the manifest says itself goes first.
  EXPECT_EQ(plan({{"sizing", {{"modelConfig", R"({"model_type": "new"})"}}}}), kExitDone);
  EXPECT_THAT(fake.out.str(), HasSubstr("memory: is not checked"));
  command.config = "sizing/CMakeLists.txt";
  const auto wrong = run(command, nullptr, fake.io);
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().message, "--config: sizing/CMakeLists.txt: is not a JSON object");
}

TEST_F(Commands, fit_asks_no_cluster_and_answers_with_its_exit_code) {
  FitCommand command{.config = "sizing/models/deepseek-v3.json", .memory = "139Gi", .gpu = true};
  command.context = 32768;
  const auto fits = run(command, fake.io);
  ASSERT_TRUE(fits) << fits.error().message;
  EXPECT_EQ(*fits, kExitDone);
  EXPECT_THAT(fake.out.str(), AllOf(HasSubstr("tensor 4  no    each accelerator needs "),
                                    HasSubstr("tensor 8  fits  each accelerator needs ")));
  command.memory = "79Gi";
  EXPECT_EQ(run(command, fake.io).value_or(-1), kExitProblem);
  command.memory = "much";
  const auto wrong = run(command, fake.io);
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().message, "--memory: is much; use an amount such as 80Gi");
  command.config = "nowhere.json";
  EXPECT_THAT(run(command, fake.io).error().message, HasSubstr("--config: cannot read nowhere"));
  EXPECT_THAT(fake.transport.requests(), IsEmpty());
}

TEST_F(Commands, plan_does_without_the_right_to_read_secrets) {
  fake.more["/api/v1/namespaces/team-a/secrets/r1-internal"] =
      status_answer(403, "Forbidden", "no secrets for you");
  fake.in.str(fake.example.model.dump());
  const auto code = run(PlanCommand{.file = "-"}, &fake.cluster, fake.io);
  ASSERT_TRUE(code) << code.error().message;
  EXPECT_THAT(fake.out.str(), HasSubstr("nothing would be done"));
}

TEST_F(Commands, version_is_of_the_program_and_of_the_cluster) {
  fake.more["/version"] = json_answer(200, {{"gitVersion", "v1.35.4"}});
  fake.more["/apis/deepseek-operator.io"] =
      json_answer(200, {{"versions", {{{"version", "v1alpha1"}}}}});
  ASSERT_TRUE(run(VersionCommand{}, &fake.cluster, fake.io));
  EXPECT_EQ(fake.out.str(), "dsmctl " + program_version() +
                                "\nKubernetes v1.35.4\ndeepseek-operator.io: v1alpha1\n");
}

}  // namespace
}  // namespace dsm::ctl
