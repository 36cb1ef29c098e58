// The whole controller over a scripted transport: lists and watches come from the test, writes are
// answered as an API server would and kept.
#include "operator/runtime/controller.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kube/testing/scripted_transport.h"

namespace dsm::runtime {
namespace {

using kube::HttpRequest;
using kube::HttpResponse;
using kube::testing::json_answer;
using kube::testing::ScriptedTransport;
using kube::testing::status_answer;
using ::testing::HasSubstr;

constexpr const char* kModels = "/apis/deepseek-operator.io/v1alpha1/deepseekmodels";

Json model(int replicas, const std::string& version) {
  return {{"apiVersion", "deepseek-operator.io/v1alpha1"},
          {"kind", "DeepSeekModel"},
          {"metadata",
           {{"name", "r1"},
            {"namespace", "ns"},
            {"uid", "u-model"},
            {"generation", 1},
            {"creationTimestamp", "2026-01-01T00:00:00Z"},
            {"resourceVersion", version}}},
          {"spec",
           {{"model", {{"uri", "image:///models/tiny"}}},
            {"parallelism", {{"tensor", 2}}},
            {"replicas", replicas}}}};
}

// Answers reads and writes and keeps count of them.
class Answers {
 public:
  HttpResponse answer(const HttpRequest& request) {
    const std::string path = request.target.substr(0, request.target.find('?'));
    if (request.method == "GET") return read(path);
    const std::lock_guard lock(mutex_);
    Json object = request.body.empty() ? Json::object() : Json::parse(request.body);
    const std::string version = std::to_string(++version_);
    const std::string kind = object.value("kind", "");
    ++seen_[request.method + " " + kind];
    changed_.notify_all();
    if (request.method == "DELETE") return json_answer(200, {{"kind", "Status"}});
    if (kind == "DeepSeekModel") {
      model_["status"] = object["status"];
      model_["metadata"]["resourceVersion"] = version;
      return json_answer(200, model_);
    }
    object["metadata"]["uid"] = "u" + version;
    object["metadata"]["resourceVersion"] = version;
    if (kind == "Secret") secret_ = object;
    return json_answer(201, object);
  }
  void set_model(Json object) {
    const std::lock_guard lock(mutex_);
    if (model_.contains("status")) object["status"] = model_["status"];
    model_ = std::move(object);
  }
  // An event of the model's watch that says `replicas`.
  std::string edit(int replicas) {
    const std::lock_guard lock(mutex_);
    model_["spec"]["replicas"] = replicas;
    model_["metadata"]["generation"] = replicas;
    model_["metadata"]["resourceVersion"] = std::to_string(++version_);
    return Json{{"type", "MODIFIED"}, {"object", model_}}.dump() + "\n";
  }
  void await(const std::string& what, int count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return seen_[what] >= count; });
  }
  int count(const std::string& what) {
    const std::lock_guard lock(mutex_);
    return seen_[what];
  }

 private:
  HttpResponse read(const std::string& path) {
    const std::lock_guard lock(mutex_);
    if (path.ends_with("/secrets/r1-internal")) {
      ++seen_["GET Secret"];
      changed_.notify_all();
      return secret_.is_null() ? status_answer(404, "NotFound") : json_answer(200, secret_);
    }
    const bool models = path == kModels;
    return json_answer(
        200, {{"kind", models ? "DeepSeekModelList" : "List"},
              {"apiVersion", "v1"},
              {"metadata", {{"resourceVersion", "100"}}},
              {"items", models && !model_.is_null() ? Json::array({model_}) : Json::array()}});
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, int> seen_;
  int version_ = 1000;
  Json model_;
  Json secret_;
};

class ControllerTest : public ::testing::Test {
 protected:
  ControllerTest() {
    transport_.on_request([this](const HttpRequest& request) { return answers_.answer(request); });
    answers_.set_model(model(1, "50"));
  }
  void start() {
    controller_.start();
    transport_.await_streams(kModels, 1);
    for (const char* path :
         {"/api/v1/pods", "/api/v1/services", "/apis/apps/v1/controllerrevisions",
          "/apis/autoscaling/v2/horizontalpodautoscalers"}) {
      transport_.await_streams(path, 1);
    }
  }

  Answers answers_;
  ScriptedTransport transport_;
  SystemClock clock_;
  MetricsRegistry registry_;
  ControllerOptions options_{.ns = "", .plan = {.worker_image = "worker:1"}};
  kube::Client client_{transport_, clock_, {}};
  kube::EventRecorder events_{client_, "deepseek-operator", "op-1", Logger()};
  ControllerMetrics metrics_{registry_, "deepseekmodel", 2};
  Controller controller_{options_, client_, client_, events_, metrics_, Logger()};
};

TEST_F(ControllerTest, TheLeaderMakesAModelTrueAndThenWritesNoMore) {
  start();
  EXPECT_TRUE(controller_.synced());
  controller_.lead(true);
  answers_.await("POST Pod", 2);
  answers_.await("POST Service", 2);
  answers_.await("POST Secret", 1);
  answers_.await("POST ControllerRevision", 1);
  // One more group: were anything written twice, there would be more than its two pods.
  transport_.feed(kModels, answers_.edit(2));
  answers_.await("POST Pod", 4);
  transport_.feed(kModels, answers_.edit(3));
  answers_.await("POST Pod", 6);
  controller_.stop();
  EXPECT_EQ(answers_.count("POST Pod"), 6);
  EXPECT_EQ(answers_.count("POST Service"), 2);
  EXPECT_EQ(answers_.count("PATCH Service"), 0);
  EXPECT_EQ(answers_.count("POST Secret"), 1);
  EXPECT_EQ(answers_.count("POST ControllerRevision"), 1);
  EXPECT_EQ(answers_.count("DELETE DeleteOptions"), 0);
}

TEST_F(ControllerTest, ScalingDownRemovesOneWholeGroup) {
  answers_.set_model(model(2, "50"));
  start();
  controller_.lead(true);
  answers_.await("POST Pod", 4);
  transport_.feed(kModels, answers_.edit(1));
  answers_.await("DELETE DeleteOptions", 2);
  controller_.stop();
  EXPECT_EQ(answers_.count("DELETE DeleteOptions"), 2);
}

TEST_F(ControllerTest, AnAutoscalerIsMadeOnceTheMetricsAreKnownToBeOurs) {
  Json scaled = model(1, "50");
  scaled["spec"]["scaling"] = {{"maxReplicas", 3}};
  answers_.set_model(scaled);
  start();
  controller_.lead(true);
  answers_.await("POST Pod", 2);
  EXPECT_EQ(answers_.count("POST HorizontalPodAutoscaler"), 0);
  controller_.metrics_api({plan::MetricsApi::State::kOurs, ""});
  answers_.await("POST HorizontalPodAutoscaler", 1);
  controller_.metrics_api({plan::MetricsApi::State::kForeign, "Service keda/metrics"});
  answers_.await("DELETE DeleteOptions", 1);
  controller_.stop();
  EXPECT_EQ(answers_.count("POST HorizontalPodAutoscaler"), 1);
}

TEST_F(ControllerTest, AModelWithoutLeadersHasAKnownLoadOfZeroInItsOwnNamespace) {
  start();
  const auto loads = controller_.loads("ns");
  ASSERT_EQ(loads.size(), 1u);
  EXPECT_EQ(loads[0].model, "r1");
  EXPECT_EQ(loads[0].unknown, "");
  EXPECT_EQ(loads[0].queue_depth, 0);
  EXPECT_TRUE(controller_.loads("n").empty());
  controller_.stop();
}

TEST_F(ControllerTest, WithoutTheLeadNothingIsWritten) {
  start();
  transport_.feed(kModels, answers_.edit(2));
  answers_.await("GET Secret", 1);  // the look at the model has begun
  controller_.stop();               // and has ended
  EXPECT_TRUE(transport_.writes().empty());
}

TEST_F(ControllerTest, TheMetricsAreThereFromTheStart) {
  controller_.update_metrics();
  const std::string text = metrics_text(registry_);
  for (const char* name :
       {"controller_runtime_reconcile_total{controller=\"deepseekmodel\",result=\"error\"} 0",
        "controller_runtime_reconcile_panics_total", "controller_runtime_max_concurrent_reconciles",
        "controller_runtime_active_workers", "workqueue_depth{name=\"deepseekmodel\"} 0",
        "workqueue_adds_total", "workqueue_retries_total", "workqueue_unfinished_work_seconds",
        "workqueue_longest_running_processor_seconds",
        "leader_election_master_status{name=\"deepseek-operator\"} 0"}) {
    EXPECT_THAT(text, HasSubstr(name));
  }
}

}  // namespace
}  // namespace dsm::runtime
