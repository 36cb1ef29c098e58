// The whole controller over a scripted transport: lists and watches come from the test, writes are
// answered as an API server would and kept.
#include "operator/runtime/controller.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

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
constexpr const char* kPodGroups = "/apis/scheduling.x-k8s.io/v1alpha1/podgroups";

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
      if (edit_first_ > 0) set_replicas(std::exchange(edit_first_, 0));
      model_["status"] = object["status"];
      for (Json& group : model_["status"]["groups"]) {
        if (heard_) group["phase"] = "Ready";
      }
      model_["metadata"]["resourceVersion"] = version;
      return json_answer(200, model_);
    }
    object["metadata"]["uid"] = "u" + version;
    object["metadata"]["resourceVersion"] = version;
    if (kind == "Secret") secret_ = object;
    if (kind == "Pod") pods_.push_back(object);
    return json_answer(201, object);
  }
  // The first `count` pods get their node and run, as events of their watch.
  std::string run_pods(std::size_t count, const std::string& node) {
    const std::lock_guard lock(mutex_);
    std::string lines;
    for (Json& pod : pods_) {
      if (count-- == 0) break;
      pod["spec"]["nodeName"] = node;
      pod["status"] = {{"phase", "Running"},
                       {"conditions", {{{"type", "Ready"}, {"status", "True"}}}}};
      pod["metadata"]["resourceVersion"] = std::to_string(++version_);
      lines += Json{{"type", "MODIFIED"}, {"object", pod}}.dump() + "\n";
    }
    return lines;
  }
  std::string node(const std::string& name, bool cordoned) {
    const std::lock_guard lock(mutex_);
    return Json{
               {"type", "ADDED"},
               {"object",
                {{"metadata",
                  {{"name", name}, {"uid", name}, {"resourceVersion", std::to_string(++version_)}}},
                 {"spec", {{"unschedulable", cordoned}}},
                 {"status", {{"conditions", {{{"type", "Ready"}, {"status", "True"}}}}}}}}}
               .dump() +
           "\n";
  }
  // A pod that was deleted, has ended, and is held by Kueue's finalizer.
  std::string held_pod() {
    const std::lock_guard lock(mutex_);
    const Json owner = {{"kind", "DeepSeekModel"}, {"uid", "u-model"}, {"controller", true}};
    const Json metadata = {{"name", "r1-0-0"},
                           {"namespace", "ns"},
                           {"uid", "u-pod"},
                           {"resourceVersion", std::to_string(++version_)},
                           {"deletionTimestamp", "2026-01-01T00:00:00Z"},
                           {"labels", {{"deepseek-operator.io/model", "r1"}}},
                           {"finalizers", {"kueue.x-k8s.io/managed"}},
                           {"ownerReferences", Json::array({owner})}};
    const Json pod = {{"metadata", metadata}, {"status", {{"phase", "Succeeded"}}}};
    return Json{{"type", "ADDED"}, {"object", pod}}.dump() + "\n";
  }
  // The next write of this kind takes effect, but its answer does not come.
  void lose_answer(const std::string& what) {
    const std::lock_guard lock(mutex_);
    lost_ = what;
  }
  bool takes_answer(const HttpRequest& request) {
    const std::lock_guard lock(mutex_);
    const Json object =
        request.body.empty() ? Json::object() : Json::parse(request.body, nullptr, false);
    if (lost_.empty() || lost_ != request.method + " " + object.value("kind", "")) return false;
    lost_.clear();
    return true;
  }
  void set_model(Json object) {
    const std::lock_guard lock(mutex_);
    if (model_.contains("status")) object["status"] = model_["status"];
    model_ = std::move(object);
  }
  // An event of the model's watch that says `replicas`.
  std::string edit(int replicas) {
    const std::lock_guard lock(mutex_);
    set_replicas(replicas);
    model_["metadata"]["resourceVersion"] = std::to_string(++version_);
    return Json{{"type", "MODIFIED"}, {"object", model_}}.dump() + "\n";
  }
  // From here on statuses say that groups are ready, as if their leaders had been heard.
  void hear_leaders() {
    const std::lock_guard lock(mutex_);
    heard_ = true;
  }
  // Somebody edits the model right before the next status is written, and its watch is late.
  void edit_before_status(int replicas) {
    const std::lock_guard lock(mutex_);
    edit_first_ = replicas;
  }
  // The definition of PodGroups is in the cluster from now on.
  void install_pod_groups() {
    const std::lock_guard lock(mutex_);
    pod_groups_ = true;
  }
  void await(const std::string& what, int count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return seen_[what] >= count; });
  }
  // The status names so many groups; with hear_leaders() they are ready once their pods are.
  void await_groups(std::size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] {
      return model_.contains("status") && model_["status"]["groups"].size() >= count;
    });
  }
  // Time passes meanwhile.
  void await(const std::string& what, int count, ManualClock& clock) {
    std::unique_lock lock(mutex_);
    while (!changed_.wait_for(lock, Millis(5), [&] { return seen_[what] >= count; })) {
      clock.advance(Seconds(1));
    }
  }
  int count(const std::string& what) {
    const std::lock_guard lock(mutex_);
    return seen_[what];
  }

 private:
  void set_replicas(int replicas) {
    model_["spec"]["replicas"] = replicas;
    model_["metadata"]["generation"] = replicas;
  }
  HttpResponse read(const std::string& path) {
    const std::lock_guard lock(mutex_);
    if (path == "/api/v1/namespaces/ns/pods" || path == "/api/v1/pods") {
      ++seen_["LIST Pod"];
      changed_.notify_all();
      return json_answer(200, {{"kind", "PodList"},
                               {"apiVersion", "v1"},
                               {"metadata", {{"resourceVersion", std::to_string(version_)}}},
                               {"items", pods_}});
    }
    if (const auto at = path.find("/api/v1/namespaces/ns/pods/"); at == 0) {
      const std::string name = path.substr(path.rfind('/') + 1);
      for (const Json& pod : pods_) {
        if (pod["metadata"]["name"] == name) return json_answer(200, pod);
      }
      return status_answer(404, "NotFound");
    }
    if (path.ends_with("/deepseekmodels/r1") && !model_.is_null()) return json_answer(200, model_);
    if (path.ends_with("/secrets/r1-internal")) {
      ++seen_["GET Secret"];
      changed_.notify_all();
      return secret_.is_null() ? status_answer(404, "NotFound") : json_answer(200, secret_);
    }
    if (path == "/apis/scheduling.x-k8s.io/v1alpha1") {
      if (!pod_groups_) return HttpResponse{404, {}, "404 page not found\n"};
      return json_answer(200, {{"resources", Json::array({Json{{"name", "podgroups"}}})}});
    }
    if (path == kPodGroups) {
      ++seen_["LIST PodGroup"];
      changed_.notify_all();
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
  std::vector<Json> pods_;
  bool pod_groups_ = false;
  std::string lost_;
  int edit_first_ = 0;
  bool heard_ = false;
};

class ControllerTest : public ::testing::Test {
 protected:
  ControllerTest() {
    transport_.on_request([this](const HttpRequest& request) -> Result<HttpResponse> {
      const bool lost = answers_.takes_answer(request);
      HttpResponse answer = answers_.answer(request);
      if (lost) return fail(ErrorKind::kTransient, "the connection was lost");
      return answer;
    });
    answers_.set_model(model(1, "50"));
  }
  void start() {
    controller_.start();
    transport_.await_streams(kModels, 1);
    for (const char* path :
         {"/api/v1/pods", "/api/v1/services", "/apis/apps/v1/controllerrevisions",
          "/apis/autoscaling/v2/horizontalpodautoscalers", "/apis/policy/v1/poddisruptionbudgets",
          "/api/v1/nodes"}) {
      transport_.await_streams(path, 1);
    }
  }

  Answers answers_;
  ScriptedTransport transport_;
  SystemClock clock_;
  MetricsRegistry registry_;
  ControllerOptions options_{.ns = "", .plan = {.worker_image = "worker:1", .watches_nodes = true}};
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
  answers_.await("PATCH Service", 2);
  answers_.await("POST Secret", 1);
  answers_.await("POST ControllerRevision", 1);
  // One more group: were anything written twice, there would be more than its two pods.
  transport_.feed(kModels, answers_.edit(2));
  answers_.await("POST Pod", 4);
  transport_.feed(kModels, answers_.edit(3));
  answers_.await("POST Pod", 6);
  controller_.stop();
  EXPECT_EQ(answers_.count("POST Pod"), 6);
  EXPECT_EQ(answers_.count("PATCH Service"), 2);
  EXPECT_EQ(answers_.count("POST Secret"), 1);
  EXPECT_EQ(answers_.count("POST ControllerRevision"), 1);
  EXPECT_EQ(answers_.count("DELETE DeleteOptions"), 0);
}

TEST_F(ControllerTest, ScalingDownRemovesOneWholeGroup) {
  answers_.set_model(model(2, "50"));
  answers_.hear_leaders();
  start();
  controller_.lead(true);
  answers_.await_groups(2);
  transport_.feed("/api/v1/pods", answers_.run_pods(4, "n1"));
  answers_.await("PATCH PodDisruptionBudget", 2);
  transport_.feed(kModels, answers_.edit(1));
  answers_.await("DELETE DeleteOptions", 3);  // its pods and its budget
  controller_.stop();
  EXPECT_EQ(answers_.count("DELETE DeleteOptions"), 3);
}

TEST_F(ControllerTest, ACordonedNodeBringsTheModelsThatHavePodsOnItBack) {
  answers_.hear_leaders();
  start();
  transport_.feed("/api/v1/nodes", answers_.node("n1", false));
  controller_.lead(true);
  answers_.await_groups(1);
  transport_.feed("/api/v1/pods", answers_.run_pods(2, "n1"));
  answers_.await("PATCH PodDisruptionBudget", 1);
  transport_.feed("/api/v1/nodes", answers_.node("n1", true));
  answers_.await("POST Pod", 4);  // another group, before the first one goes
  controller_.stop();
  EXPECT_EQ(answers_.count("DELETE DeleteOptions"), 0);
}

TEST_F(ControllerTest, PodsOfAModelThatIsGoneAreLetGo) {
  answers_.set_model(Json());
  start();
  controller_.lead(true);
  transport_.feed("/api/v1/pods", answers_.held_pod());
  answers_.await("PATCH ", 1);
  controller_.stop();
  ASSERT_EQ(transport_.writes().size(), 1u);
  EXPECT_THAT(transport_.writes()[0].target, HasSubstr("/api/v1/namespaces/ns/pods/r1-0-0"));
  EXPECT_THAT(transport_.writes()[0].body, HasSubstr("kueue.x-k8s.io/managed"));
}

TEST_F(ControllerTest, APodWhoseAnswerWasLostIsFoundAndNotMadeTwice) {
  answers_.lose_answer("POST Pod");
  answers_.hear_leaders();
  start();
  controller_.lead(true);
  answers_.await("LIST Pod", 3);  // by its watch, when it began to lead, and after the loss
  answers_.await("POST Pod", 2);
  answers_.await_groups(1);
  transport_.feed("/api/v1/pods", answers_.run_pods(2, "n1"));
  answers_.await("PATCH PodDisruptionBudget", 1);
  // One more group: were the lost one not seen, it would be made a second time.
  transport_.feed(kModels, answers_.edit(2));
  answers_.await("POST Pod", 4);
  answers_.await_groups(2);
  transport_.feed("/api/v1/pods", answers_.run_pods(4, "n1"));
  answers_.await("PATCH PodDisruptionBudget", 2);
  controller_.stop();
  EXPECT_EQ(answers_.count("POST Pod"), 4);
}

TEST_F(ControllerTest, AnEditThatTheAnswerToAStatusBringsIsActedOn) {
  answers_.edit_before_status(2);
  start();
  controller_.lead(true);
  answers_.await("POST Pod", 4);
  controller_.stop();
  EXPECT_EQ(answers_.count("POST Pod"), 4);
}

TEST_F(ControllerTest, AnAutoscalerIsMadeOnceTheMetricsAreKnownToBeOurs) {
  Json scaled = model(1, "50");
  scaled["spec"]["scaling"] = {{"maxReplicas", 3}};
  answers_.set_model(scaled);
  start();
  controller_.lead(true);
  answers_.await("POST Pod", 2);
  EXPECT_EQ(answers_.count("PATCH HorizontalPodAutoscaler"), 0);
  controller_.metrics_api({plan::MetricsApi::State::kOurs, ""});
  answers_.await("PATCH HorizontalPodAutoscaler", 1);
  controller_.metrics_api(
      {plan::MetricsApi::State::kForeign, "Service keda/metrics", "Service monitoring/adapter"});
  answers_.await("DELETE DeleteOptions", 1);
  controller_.stop();
  EXPECT_EQ(answers_.count("PATCH HorizontalPodAutoscaler"), 1);
}

TEST_F(ControllerTest, AModelWithoutLeadersHasAKnownLoadOfZeroInItsOwnNamespace) {
  start();
  const auto loads = controller_.loads("ns", "");
  ASSERT_EQ(loads.size(), 1u);
  EXPECT_EQ(loads[0].model, "r1");
  EXPECT_EQ(loads[0].unknown, "");
  EXPECT_EQ(loads[0].queue_depth, 0);
  EXPECT_TRUE(controller_.loads("n", "").empty());
  EXPECT_EQ(controller_.loads("ns", "r1").size(), 1u);
  EXPECT_TRUE(controller_.loads("ns", "r2").empty());
  const auto all = controller_.loads();
  ASSERT_EQ(all.size(), 1u);
  EXPECT_EQ(all.at("ns").size(), 1u);
  controller_.stop();
}

TEST_F(ControllerTest, WithoutTheLeadNothingIsWritten) {
  start();
  transport_.feed(kModels, answers_.edit(2));
  const std::string not_looked_at =
      "reconcile_total{controller=\"deepseekmodel\",result=\"requeue_after\"} 0\n";
  while (metrics_text(registry_).find(not_looked_at) != std::string::npos) {
    std::this_thread::yield();
  }
  controller_.stop();
  EXPECT_TRUE(transport_.writes().empty());
  EXPECT_EQ(answers_.count("GET Secret"), 0) << "there is no leader to listen to";
}

class CoschedulingTest : public ControllerTest {
 protected:
  CoschedulingTest() {
    Json scheduled = model(1, "50");
    scheduled["spec"]["placement"] = {{"schedulerName", "coscheduler"}};
    answers_.set_model(scheduled);
  }

  ControllerOptions with_pod_groups_{
      .ns = "", .plan = {.worker_image = "worker:1", .watches_nodes = true}, .coscheduling = true};
  ManualClock manual_;
  kube::Client timed_{transport_, manual_, {}};
  Controller coscheduled_{with_pod_groups_, timed_, timed_, events_, metrics_, Logger()};
};

TEST_F(CoschedulingTest, GroupsHavePodGroupsFromWhenTheKindIsThere) {
  coscheduled_.start();
  coscheduled_.lead(true);
  answers_.await("POST Pod", 2);
  EXPECT_TRUE(coscheduled_.synced());
  EXPECT_EQ(answers_.count("PATCH PodGroup"), 0);
  answers_.install_pod_groups();
  answers_.await("LIST PodGroup", 1, manual_);
  transport_.await_streams(kPodGroups, 1);
  transport_.feed(kModels, answers_.edit(2));
  answers_.await("POST Pod", 4);
  coscheduled_.stop();
  EXPECT_EQ(answers_.count("PATCH PodGroup"), 1) << "the first group stays as it was made";
}

TEST_F(CoschedulingTest, NothingIsMadeBeforeItIsKnownWhetherThereArePodGroups) {
  answers_.install_pod_groups();
  coscheduled_.start();
  coscheduled_.lead(true);
  answers_.await("POST Pod", 2);
  coscheduled_.stop();
  EXPECT_EQ(answers_.count("PATCH PodGroup"), 1);
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
