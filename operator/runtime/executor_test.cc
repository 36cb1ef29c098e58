#include "operator/runtime/executor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kube/testing/scripted_transport.h"

namespace dsm::runtime {
namespace {

using kube::HttpRequest;
using kube::testing::json_answer;
using kube::testing::ScriptedTransport;
using kube::testing::status_answer;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const Json kModel = {{"apiVersion", "deepseek-operator.io/v1alpha1"},
                     {"kind", "DeepSeekModel"},
                     {"metadata", {{"name", "r1"}, {"namespace", "ns"}, {"uid", "u-model"}}}};

Json child(const std::string& kind, const std::string& name, const std::string& version = "") {
  Json object = {
      {"apiVersion", "v1"},
      {"kind", kind},
      {"metadata",
       {{"name", name}, {"namespace", "ns"}, {"labels", {{"deepseek-operator.io/model", "r1"}}}}}};
  if (!version.empty()) {
    object["metadata"]["resourceVersion"] = version;
    object["metadata"]["uid"] = "u-" + name;
  }
  return object;
}

class ExecutorTest : public ::testing::Test {
 protected:
  Outcome run(const plan::Plan& plan) { return executor_.run(plan, kModel); }
  std::vector<std::string> sent() {
    std::vector<std::string> result;
    for (const HttpRequest& request : transport_.requests()) {
      result.push_back(request.method + " " + request.target.substr(0, request.target.find('?')));
    }
    return result;
  }
  std::vector<std::string> pods() {
    std::vector<std::string> result;
    for (const auto& pod : store_.pods.of_model("ns/r1")) {
      result.push_back(pod->name + (pod->deletion ? " going" : ""));
    }
    return result;
  }

  ScriptedTransport transport_;
  ManualClock clock_;
  kube::Client client_{transport_, clock_, {}};
  kube::EventRecorder events_{client_, "deepseek-operator", "op-1", Logger()};
  Store store_;
  Secrets secrets_{client_};
  Failures failures_;
  Executor executor_{client_, events_, store_, secrets_, failures_, Logger()};
};

TEST_F(ExecutorTest, EverythingIsDoneInThePlansOrder) {
  transport_.on_request([](const HttpRequest& request) {
    return json_answer(
        200, request.method == "DELETE" ? Json{{"kind", "Status"}} : Json::parse(request.body));
  });
  plan::Plan plan;
  plan.remove.push_back({"v1", "Pod", "old", "u-old", "not wanted"});
  plan.children.push_back({plan::ChildWrite::Verb::kCreate, "v1", "Secret", "r1-internal",
                           child("Secret", "r1-internal")});
  plan.children.push_back(
      {plan::ChildWrite::Verb::kApply, "v1", "Service", "r1", child("Service", "r1")});
  plan.create_pods.push_back(child("Pod", "new"));
  plan.status = Json{{"replicas", 1}};
  plan.events.push_back({false, "Created", "Creating", "made it"});
  const Outcome outcome = run(plan);
  EXPECT_FALSE(outcome.error);
  EXPECT_TRUE(outcome.status_written);
  EXPECT_THAT(
      sent(),
      ElementsAre("DELETE /api/v1/namespaces/ns/pods/old", "POST /api/v1/namespaces/ns/secrets",
                  "PATCH /api/v1/namespaces/ns/services/r1", "POST /api/v1/namespaces/ns/pods",
                  "PATCH /apis/deepseek-operator.io/v1alpha1/namespaces/ns/"
                  "deepseekmodels/r1/status",
                  "POST /apis/events.k8s.io/v1/namespaces/ns/events"));
}

TEST_F(ExecutorTest, AnEmptyPlanSendsNothing) {
  EXPECT_EQ(run({}).writes, 0);
  EXPECT_THAT(sent(), IsEmpty());
}

TEST_F(ExecutorTest, AStatusIsAppliedToTheIncarnationThatWasLookedAt) {
  transport_.next(json_answer(200, kModel));
  plan::Plan plan;
  plan.status = Json{{"replicas", 1}};
  run(plan);
  const Json body = Json::parse(transport_.requests()[0].body);
  EXPECT_EQ(body["metadata"], (Json{{"name", "r1"}, {"namespace", "ns"}, {"uid", "u-model"}}));
  EXPECT_EQ(body["status"], (Json{{"replicas", 1}}));
}

TEST_F(ExecutorTest, AModelThatWasEditedMeanwhileIsNoticedInTheAnswerToItsStatus) {
  plan::Plan plan;
  plan.status = Json{{"replicas", 1}};
  Json answer = kModel;
  answer["metadata"]["resourceVersion"] = "7";
  answer["metadata"]["managedFields"] = Json::array({{{"manager", "kubectl"}}});
  answer["status"] = {{"replicas", 1}};
  transport_.next(json_answer(200, answer));
  EXPECT_FALSE(run(plan).overtaken);
  answer["spec"] = {{"replicas", 2}};
  transport_.next(json_answer(200, answer));
  EXPECT_TRUE(run(plan).overtaken);
}

TEST_F(ExecutorTest, AnswersAreInTheStoreBeforeTheWatchBringsThem) {
  transport_.next(json_answer(201, child("Pod", "r1-0", "7")));
  plan::Plan plan;
  plan.create_pods.push_back(child("Pod", "r1-0"));
  run(plan);
  EXPECT_THAT(pods(), ElementsAre("r1-0"));

  Json going = child("Pod", "r1-0", "8");
  going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z";
  transport_.next(json_answer(200, going));
  plan::Plan removal;
  removal.remove.push_back({"v1", "Pod", "r1-0", "u-r1-0", ""});
  run(removal);
  EXPECT_THAT(pods(), ElementsAre("r1-0 going"));
}

TEST_F(ExecutorTest, DeletingWhatIsGoneOrReplacedIsDone) {
  plan::Plan plan;
  plan.remove.push_back({"v1", "Pod", "a", "u-a", ""});
  plan.remove.push_back({"v1", "Pod", "b", "u-b", ""});
  transport_.next(status_answer(404, "NotFound"));
  transport_.next(status_answer(409, "Conflict"));
  EXPECT_FALSE(run(plan).error);
  EXPECT_THAT(failures_.of_model("ns/r1", clock_.wall_now()), IsEmpty());
  EXPECT_THAT(transport_.requests()[0].body, HasSubstr(R"("uid":"u-a")"));
}

TEST_F(ExecutorTest, AFinalizerIsTakenOffTheOnePodThatIsMeant) {
  const auto going = [](Json finalizers) {
    Json pod = child("Pod", "a", "7");
    pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z";
    pod["metadata"]["finalizers"] = std::move(finalizers);
    return pod;
  };
  const auto refill = [&] { store_.pods.refresh("ns/r1", {going({"f"})}, "7"); };
  plan::Plan plan;
  plan.release.push_back({"a", "u-a", "f"});

  refill();
  transport_.next(json_answer(200, going({"other"})));
  EXPECT_EQ(run(plan).writes, 1);
  EXPECT_THAT(pods(), ElementsAre("a going")) << "somebody else's holds it";
  EXPECT_EQ(transport_.requests()[0].method, "PATCH");
  EXPECT_EQ(Json::parse(transport_.requests()[0].body),
            (Json{{"metadata", {{"uid", "u-a"}, {"$deleteFromPrimitiveList/finalizers", {"f"}}}}}));

  transport_.next(json_answer(200, going(Json::array())));
  run(plan);
  EXPECT_THAT(pods(), IsEmpty());

  for (const auto& gone : {status_answer(404, "NotFound"), status_answer(422, "Invalid")}) {
    refill();
    transport_.next(gone);
    EXPECT_FALSE(run(plan).error);
    EXPECT_THAT(pods(), IsEmpty());
  }

  refill();
  transport_.next(status_answer(409, "Conflict"));
  EXPECT_TRUE(run(plan).error) << "it is tried again";
  EXPECT_THAT(failures_.of_model("ns/r1", clock_.wall_now()), IsEmpty());
  EXPECT_THAT(pods(), ElementsAre("a going"));

  transport_.next(status_answer(403, "Forbidden"));
  EXPECT_TRUE(run(plan).error);
  EXPECT_EQ(failures_.of_model("ns/r1", clock_.wall_now()).size(), 1u);
}

TEST_F(ExecutorTest, ARefusalIsRememberedAndTheRestIsDoneAllTheSame) {
  transport_.next(status_answer(403, "Forbidden", "exceeded quota"));
  transport_.next(json_answer(201, child("Pod", "b", "8")));
  plan::Plan plan;
  plan.create_pods = {child("Pod", "a"), child("Pod", "b")};
  const Outcome outcome = run(plan);
  ASSERT_TRUE(outcome.error);
  EXPECT_EQ(outcome.error->kind, ErrorKind::kDenied);
  EXPECT_EQ(outcome.writes, 1);
  const auto failures = failures_.of_model("ns/r1", clock_.wall_now());
  ASSERT_EQ(failures.size(), 1u);
  EXPECT_EQ(failures[0].name, "a");
  EXPECT_THAT(failures[0].message, HasSubstr("exceeded quota"));

  transport_.next(json_answer(201, child("Pod", "a", "9")));
  plan.create_pods = {child("Pod", "a")};
  EXPECT_FALSE(run(plan).error);
  EXPECT_THAT(failures_.of_model("ns/r1", clock_.wall_now()), IsEmpty());
}

TEST_F(ExecutorTest, AServerThatDoesNotAnswerIsAskedOnce) {
  plan::Plan plan;
  plan.create_pods = {child("Pod", "a"), child("Pod", "b")};
  plan.status = Json{{"replicas", 1}};
  plan.events.push_back({false, "Created", "Creating", "made it"});
  transport_.next(fail(ErrorKind::kTransient, "no answer in time"));
  ASSERT_TRUE(run(plan).error);
  EXPECT_EQ(transport_.requests().size(), 1u);
}

TEST_F(ExecutorTest, FailuresAreForgottenAfterTenMinutes) {
  failures_.record("ns/r1", {"Pod", "a", ErrorKind::kDenied, "no", clock_.wall_now()});
  clock_.advance(std::chrono::minutes(9));
  EXPECT_EQ(failures_.of_model("ns/r1", clock_.wall_now()).size(), 1u);
  clock_.advance(std::chrono::minutes(1));
  EXPECT_THAT(failures_.of_model("ns/r1", clock_.wall_now()), IsEmpty());
}

TEST_F(ExecutorTest, AStatusConflictIsARetryAndAGoneModelIsNot) {
  plan::Plan plan;
  plan.status = Json{{"replicas", 1}};
  transport_.next(status_answer(409, "Conflict"));
  EXPECT_TRUE(run(plan).error);
  transport_.next(status_answer(404, "NotFound"));
  EXPECT_FALSE(run(plan).error);
}

TEST_F(ExecutorTest, WithoutTheLeaseNothingIsSentAndNobodyIsBlamed) {
  kube::ClientOptions gated;
  gated.may_write = [](TimePoint) { return false; };
  kube::Client held(transport_, clock_, gated);
  Executor executor(held, events_, store_, secrets_, failures_, Logger());
  plan::Plan plan;
  plan.create_pods.push_back(child("Pod", "a"));
  const Outcome outcome = executor.run(plan, kModel);
  ASSERT_TRUE(outcome.error);
  EXPECT_EQ(outcome.error->kind, ErrorKind::kCancelled);
  EXPECT_THAT(sent(), IsEmpty());
  EXPECT_THAT(failures_.of_model("ns/r1", clock_.wall_now()), IsEmpty());
}

TEST_F(ExecutorTest, ASecretThatIsNotThereYetIsLookedForAgain) {
  transport_.next(status_answer(404, "NotFound"));
  EXPECT_TRUE(secrets_.of_model("ns/r1")->object.is_null());
  Json secret = child("Secret", "r1-internal", "3");
  secret["data"] = {{"token", "c2VjcmV0"}};
  transport_.next(json_answer(200, secret));
  EXPECT_EQ(secrets_.of_model("ns/r1")->token, "secret") << "another replica has made it";
}

TEST_F(ExecutorTest, ASecretIsReadByNameAndKeptForAWhileWithoutItsData) {
  Json secret = child("Secret", "r1-internal", "3");
  secret["data"] = {{"token", "c2VjcmV0"}};
  transport_.next(json_answer(200, secret));
  const auto entry = secrets_.of_model("ns/r1");
  ASSERT_TRUE(entry);
  EXPECT_EQ(entry->token, "secret");
  EXPECT_FALSE(entry->object.contains("data"));
  EXPECT_TRUE(secrets_.of_model("ns/r1"));
  EXPECT_THAT(sent(), ElementsAre("GET /api/v1/namespaces/ns/secrets/r1-internal"));

  clock_.advance(Secrets::kKept);
  transport_.next(status_answer(500, "InternalError"));
  EXPECT_EQ(secrets_.of_model("ns/r1")->token, "secret") << "what was known before is better";
  transport_.next(status_answer(404, "NotFound"));
  EXPECT_TRUE(secrets_.of_model("ns/r1")->object.is_null());
}

}  // namespace
}  // namespace dsm::runtime
