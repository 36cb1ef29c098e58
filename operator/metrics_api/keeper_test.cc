// The keeper over a scripted transport: a small API server with a Secret, a ClusterRole and
// APIServices.
#include "operator/metrics_api/keeper.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "kube/config.h"
#include "kube/testing/scripted_transport.h"

namespace dsm::metrics_api {
namespace {

using kube::HttpRequest;
using kube::HttpResponse;
using kube::testing::json_answer;
using kube::testing::ScriptedTransport;
using kube::testing::status_answer;
using testing::HasSubstr;
using State = plan::MetricsApi::State;

const Place kPlace{"system", "dsm-metrics-api", "dsm"};
const std::string kExternalService = kExternalMetrics.api_service();
const std::string kCustomService = kCustomMetrics.api_service();

// An APIService that somebody else made.
Json foreign(const std::string& name, const std::string& ns, const std::string& service) {
  return {{"metadata", {{"name", name}}},
          {"spec", {{"service", {{"namespace", ns}, {"name", service}}}}}};
}

// What is stored, by the end of its path.
class Cluster {
 public:
  Cluster() { put("dsm", {{"metadata", {{"uid", "role-uid"}}}}); }
  HttpResponse answer(const HttpRequest& request) {
    const std::lock_guard lock(mutex_);
    const std::string path = request.target.substr(0, request.target.find('?'));
    std::string name = path.substr(path.rfind('/') + 1);
    if (request.method == "DELETE") {
      writes_.push_back(request.method + " " + path);
      bodies_.push_back(Json::parse(request.body));
      objects_.erase(name);
      return json_answer(200, {{"kind", "Status"}, {"status", "Success"}});
    }
    if (request.method != "GET") {
      writes_.push_back(request.method + " " + path);
      Json object = Json::parse(request.body);
      if (request.method == "POST") name = object["metadata"]["name"];
      if (request.method == "PATCH" && !taker_.is_null())
        objects_[name] = std::exchange(taker_, {});
      // Where a version is given, the write is of that version alone.
      const Json version = object["metadata"].value("resourceVersion", Json());
      const auto there = objects_.find(name);
      if (!version.is_null() && there != objects_.end() &&
          version != there->second["metadata"]["resourceVersion"]) {
        return status_answer(409, "Conflict");
      }
      object["metadata"]["resourceVersion"] = std::to_string(++version_);
      object["metadata"]["uid"] = "uid-of-" + name;
      objects_[name] = object;
    }
    const auto found = objects_.find(name);
    return found == objects_.end() ? status_answer(404, "NotFound")
                                   : json_answer(200, found->second);
  }
  void put(const std::string& name, Json object) {
    const std::lock_guard lock(mutex_);
    objects_[name] = std::move(object);
  }
  void remove(const std::string& name) {
    const std::lock_guard lock(mutex_);
    objects_.erase(name);
  }
  // Right before the next PATCH somebody puts this in the place of what is patched.
  void take_over(Json object) {
    const std::lock_guard lock(mutex_);
    object["metadata"]["resourceVersion"] = "9999";
    taker_ = std::move(object);
  }
  bool taken_over() {
    const std::lock_guard lock(mutex_);
    return taker_.is_null();
  }
  // Of the last DELETE.
  Json deleted_with() {
    const std::lock_guard lock(mutex_);
    return bodies_.back();
  }
  Json get(const std::string& name) {
    const std::lock_guard lock(mutex_);
    return objects_[name];
  }
  std::vector<std::string> take_writes() {
    const std::lock_guard lock(mutex_);
    return std::exchange(writes_, {});
  }

 private:
  std::mutex mutex_;
  std::map<std::string, Json> objects_;
  std::vector<std::string> writes_;
  std::vector<Json> bodies_;  // of DELETEs
  Json taker_;
  int version_ = 0;
};

class KeeperTest : public testing::Test {
 protected:
  KeeperTest() {
    transport.on_request([this](const HttpRequest& request) { return cluster.answer(request); });
  }
  // The state that the leader says next.
  plan::MetricsApi next_state() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return !states.empty(); });
    const plan::MetricsApi state = states.front();
    states.erase(states.begin());
    return state;
  }
  // What the keeper says at a look that begins after this time; the look before has ended then.
  plan::MetricsApi after(std::chrono::nanoseconds time) {
    clock.advance(time);
    keeper.lead(true);  // wakes it
    return next_state();
  }

  Cluster cluster;
  ScriptedTransport transport;
  ManualClock clock;
  kube::Client client{transport, clock, {}};
  std::shared_ptr<http::Tls> tls = std::make_shared<http::Tls>();
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<plan::MetricsApi> states;
  Keeper keeper{kPlace,
                client,
                client,
                tls,
                [this](plan::MetricsApi state) {
                  const std::lock_guard lock(mutex);
                  states.push_back(std::move(state));
                  changed.notify_all();
                },
                Logger()};
};

TEST_F(KeeperTest, TheLeaderMakesACertificateAndThenTheApiServiceThatTrustsIt) {
  keeper.lead(true);
  keeper.start();
  EXPECT_EQ(next_state().state, State::kOurs);
  keeper.stop();
  EXPECT_THAT(cluster.take_writes(),
              testing::ElementsAre(
                  "POST /api/v1/namespaces/system/secrets",
                  "PATCH /apis/apiregistration.k8s.io/v1/apiservices/" + kExternalService));
  EXPECT_EQ(cluster.get(kExternalService)["spec"]["caBundle"],
            cluster.get("dsm-metrics-api-tls")["data"]["ca.crt"]);
  EXPECT_TRUE(tls->ready());
  EXPECT_GT(keeper.certificate_until(), clock.wall_now() + kRenewBefore);
}

TEST_F(KeeperTest, WhatIsAsItShouldBeIsNotWritten) {
  keeper.lead(true);
  keeper.start();
  next_state();
  cluster.take_writes();
  EXPECT_EQ(after(Keeper::kLook).state, State::kOurs);
  EXPECT_EQ(after(Keeper::kLook).state, State::kOurs);
  EXPECT_THAT(cluster.take_writes(), testing::IsEmpty());
}

TEST_F(KeeperTest, ACertificateIsRenewedInTimeAndTheOldAuthorityStaysTrusted) {
  keeper.lead(true);
  keeper.start();
  next_state();
  const Serving first = serving_of(cluster.get("dsm-metrics-api-tls")).value();
  cluster.take_writes();
  const WallTime until = keeper.certificate_until();
  after(kCertificateLife - kRenewBefore + std::chrono::hours(1));
  after(Keeper::kLook);
  EXPECT_THAT(
      cluster.take_writes(),
      testing::ElementsAre(
          "PUT /api/v1/namespaces/system/secrets/dsm-metrics-api-tls",
          "PATCH /apis/apiregistration.k8s.io/v1/apiservices/v1beta1.external.metrics.k8s.io"));
  const Json bundle = cluster.get(kExternalService)["spec"]["caBundle"];
  EXPECT_THAT(kube::base64_decode(bundle.get<std::string>()).value(), HasSubstr(first.authorities));
  EXPECT_GT(keeper.certificate_until(), until);
}

TEST_F(KeeperTest, TheAuthorityOfACertificateWhoseSecretWasDeletedStaysTrusted) {
  keeper.lead(true);
  keeper.start();
  next_state();
  const Serving first = serving_of(cluster.get("dsm-metrics-api-tls")).value();
  cluster.remove("dsm-metrics-api-tls");
  after(Keeper::kLook);
  after(Keeper::kLook);
  const Json bundle = cluster.get(kExternalService)["spec"]["caBundle"];
  EXPECT_THAT(kube::base64_decode(bundle.get<std::string>()).value(), HasSubstr(first.authorities));
}

TEST_F(KeeperTest, AnApiServiceThatSomebodyTakesMeanwhileStaysTheirs) {
  keeper.lead(true);
  keeper.start();
  next_state();
  cluster.take_over(foreign(kExternalService, "keda", "metrics"));
  clock.advance(kCertificateLife - kRenewBefore + std::chrono::hours(1));
  keeper.lead(true);  // the new certificate is to be written there, and finds it taken
  while (!cluster.taken_over()) std::this_thread::yield();
  EXPECT_EQ(after(Keeper::kLookAgain), (plan::MetricsApi{State::kCustom, "Service keda/metrics"}));
  EXPECT_EQ(cluster.get(kExternalService)["spec"]["service"]["namespace"], "keda");
}

TEST_F(KeeperTest, BesideAForeignServerOfExternalMetricsItTakesCustomOnesUntilTheOthersAreFree) {
  const Json keda = foreign(kExternalService, "keda", "metrics");
  cluster.put(kExternalService, keda);
  keeper.lead(true);
  keeper.start();
  EXPECT_EQ(next_state(), (plan::MetricsApi{State::kCustom, "Service keda/metrics"}));
  EXPECT_THAT(
      cluster.take_writes(),
      testing::ElementsAre("POST /api/v1/namespaces/system/secrets",
                           "PATCH /apis/apiregistration.k8s.io/v1/apiservices/" + kCustomService));
  EXPECT_EQ(cluster.get(kExternalService), keda);
  const Json made = cluster.get(kCustomService);
  EXPECT_EQ(made["spec"]["caBundle"], cluster.get("dsm-metrics-api-tls")["data"]["ca.crt"]);
  EXPECT_EQ(after(Keeper::kLook).state, State::kCustom);
  EXPECT_THAT(cluster.take_writes(), testing::IsEmpty());

  cluster.remove(kExternalService);
  EXPECT_EQ(after(Keeper::kLook).state, State::kOurs);
  EXPECT_THAT(
      cluster.take_writes(),
      testing::ElementsAre(
          "PATCH /apis/apiregistration.k8s.io/v1/apiservices/" + kExternalService,
          "DELETE /apis/apiregistration.k8s.io/v1/apiservices/v1beta2.custom.metrics.k8s.io"));
  EXPECT_EQ(cluster.deleted_with()["preconditions"],
            Json({{"uid", made["metadata"]["uid"]},
                  {"resourceVersion", made["metadata"]["resourceVersion"]}}));
}

TEST_F(KeeperTest, ForeignApiServicesAreNeverTouched) {
  const Json keda = foreign(kExternalService, "keda", "metrics");
  const Json adapter = foreign(kCustomService, "monitoring", "adapter");
  cluster.put(kExternalService, keda);
  cluster.put(kCustomService, adapter);
  keeper.lead(true);
  keeper.start();
  EXPECT_EQ(next_state(), (plan::MetricsApi{State::kForeign, "Service keda/metrics",
                                            "Service monitoring/adapter"}));
  EXPECT_THAT(cluster.take_writes(),
              testing::ElementsAre("POST /api/v1/namespaces/system/secrets"));
  EXPECT_EQ(cluster.get(kExternalService), keda);
  EXPECT_EQ(cluster.get(kCustomService), adapter);
}

TEST_F(KeeperTest, AnAdapterThatComesLaterWithAnOlderVersionGetsItsApiToItself) {
  cluster.put(kExternalService, foreign(kExternalService, "keda", "metrics"));
  keeper.lead(true);
  keeper.start();
  EXPECT_EQ(next_state().state, State::kCustom);
  cluster.take_writes();
  const std::string older(kOlderCustomApiService);
  cluster.put(older, foreign(older, "monitoring", "adapter"));
  EXPECT_EQ(after(Keeper::kLook), (plan::MetricsApi{State::kForeign, "Service keda/metrics",
                                                    "Service monitoring/adapter"}));
  EXPECT_THAT(
      cluster.take_writes(),
      testing::ElementsAre(
          "DELETE /apis/apiregistration.k8s.io/v1/apiservices/v1beta2.custom.metrics.k8s.io"));
}

TEST_F(KeeperTest, WithoutTheLeadNothingIsWrittenAndTheSharedCertificateIsUsed) {
  const Serving shared = new_serving(nullptr, kPlace, clock.wall_now()).value();
  cluster.put("dsm-metrics-api-tls", secret_json(shared, kPlace, "role-uid", ""));
  keeper.start();
  keeper.lead(true);
  next_state();
  keeper.stop();
  EXPECT_TRUE(tls->ready());
  EXPECT_THAT(cluster.take_writes(),
              testing::ElementsAre("PATCH /apis/apiregistration.k8s.io/v1/apiservices/" +
                                   kExternalService));
}

}  // namespace
}  // namespace dsm::metrics_api
