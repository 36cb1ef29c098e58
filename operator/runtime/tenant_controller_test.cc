// The tenants' loop over a scripted transport that keeps what is written, as an API server would.
#include "operator/runtime/tenant_controller.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>

#include "kube/testing/scripted_transport.h"

namespace dsm::runtime {
namespace {

using kube::HttpRequest;
using kube::HttpResponse;
using kube::testing::json_answer;
using kube::testing::ScriptedTransport;
using kube::testing::status_answer;

constexpr const char* kTenants = "/apis/deepseek-operator.io/v1alpha1/deepseektenants";
constexpr const char* kSpaces = "/api/v1/namespaces";

Json tenant() {
  return {{"apiVersion", "deepseek-operator.io/v1alpha1"},
          {"kind", "DeepSeekTenant"},
          {"metadata",
           {{"name", "a"},
            {"uid", "u-a"},
            {"generation", 1},
            {"creationTimestamp", "2026-01-01T00:00:00Z"},
            {"resourceVersion", "50"}}},
          {"spec", {{"namespaces", {"team-a"}}}}};
}

Json space() {
  return {{"apiVersion", "v1"},
          {"kind", "Namespace"},
          {"metadata", {{"name", "team-a"}, {"uid", "u-team-a"}, {"resourceVersion", "40"}}}};
}

class TenantControllerTest : public ::testing::Test {
 protected:
  TenantControllerTest() {
    transport_.on_request([this](const HttpRequest& request) { return answer(request); });
  }
  void start() {
    controller_.start();
    transport_.await_streams(kTenants, 1);
    transport_.await_streams(kSpaces, 1);
    transport_.await_streams("/api/v1/secrets", 1);
    for (const kube::Resource* kind : kTenantKinds) {
      const std::string target = kube::list_request(*kind, "", {}).target;
      transport_.await_streams(target.substr(0, target.find('?')), 1);
    }
  }
  void await(const std::string& what, int count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return seen_[what] >= count; });
  }
  // Until the status says this of Ready.
  void await_ready(const std::string& reason) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return ready_ == reason; });
  }
  int count(const std::string& what) {
    const std::lock_guard lock(mutex_);
    return seen_[what];
  }
  std::string event(const char* type, Json object) {
    const std::lock_guard lock(mutex_);
    object["metadata"]["resourceVersion"] = std::to_string(++version_);
    return Json{{"type", type}, {"object", object}}.dump() + "\n";
  }

  HttpResponse answer(const HttpRequest& request) {
    const std::string path = request.target.substr(0, request.target.find('?'));
    const std::lock_guard lock(mutex_);
    if (request.method == "GET") return read(path);
    Json object = Json::parse(request.body);
    const std::string kind = object.value("kind", "");
    if (kind == refused_) return status_answer(500, "InternalError");
    ++seen_[request.method + " " + kind];
    object["metadata"]["resourceVersion"] = std::to_string(++version_);
    if (!object["metadata"].contains("uid"))
      object["metadata"]["uid"] = "u" + std::to_string(version_);
    if (kind == "DeepSeekTenant") {
      ready_ = object["status"]["conditions"][0]["reason"].get<std::string>();
      Json whole = tenant();
      whole["status"] = object["status"];
      whole["metadata"]["resourceVersion"] = object["metadata"]["resourceVersion"];
      object = whole;
    }
    changed_.notify_all();
    return json_answer(200, object);
  }

  ScriptedTransport transport_;
  SystemClock clock_;
  MetricsRegistry registry_;
  kube::Client client_{transport_, clock_, {}};
  ControllerMetrics metrics_{registry_, "deepseektenant", 1};
  Store models_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, int> seen_;
  std::string ready_;
  std::string refused_;  // writes of this kind are answered with 500
  int version_ = 1000;
  bool tenant_there_ = true;
  TenantController controller_{
      {.plan = {.owner_role = "owner", .operator_namespace = "system"}, .metrics = &metrics_},
      client_,
      client_,
      models_,
      [](const std::string&) {},
      Logger()};

 private:
  HttpResponse read(const std::string& path) {
    if (path == std::string(kTenants) + "/a") {
      ++seen_["GET DeepSeekTenant"];
      changed_.notify_all();
      return tenant_there_ ? json_answer(200, tenant()) : status_answer(404, "NotFound");
    }
    Json items = Json::array();
    if (path == kTenants) items.push_back(tenant());
    if (path == kSpaces) items.push_back(space());
    return json_answer(200, {{"kind", "List"},
                             {"apiVersion", "v1"},
                             {"metadata", {{"resourceVersion", "100"}}},
                             {"items", items}});
  }
};

TEST_F(TenantControllerTest, TheLeaderWallsANamespaceInAndThenWritesNoMore) {
  start();
  EXPECT_TRUE(controller_.knows_tenants());
  controller_.lead(true);
  await_ready("AllNamespacesReady");
  controller_.stop();
  EXPECT_EQ(count("PATCH Namespace"), 1);
  EXPECT_EQ(count("PATCH NetworkPolicy"), 3);
  EXPECT_EQ(count("PATCH DeepSeekTenant"), 1);
}

TEST_F(TenantControllerTest, WhatIsBeingMadeIsSaidWhileAWriteFails) {
  refused_ = "NetworkPolicy";
  start();
  controller_.lead(true);
  await_ready("Applying");
  {
    const std::lock_guard lock(mutex_);
    refused_.clear();
  }
  await_ready("AllNamespacesReady");
}

TEST_F(TenantControllerTest, WithoutTheLeadNothingIsWritten) {
  start();
  transport_.feed(kSpaces, event("MODIFIED", space()));
  controller_.stop();
  EXPECT_TRUE(transport_.writes().empty());
}

TEST_F(TenantControllerTest, OnlySecretsOfTheOneNameAreAskedFor) {
  start();
  controller_.stop();
  for (const HttpRequest& request : transport_.requests()) {
    if (request.target.find("/secrets") == std::string::npos) continue;
    EXPECT_NE(request.target.find("fieldSelector=metadata.name%3Ddeepseek-api-keys"),
              std::string::npos)
        << request.target;
  }
}

TEST_F(TenantControllerTest, LabelsGoOnlyWhenTheApiServerSaysThatTheTenantIsGone) {
  start();
  controller_.lead(true);
  await_ready("AllNamespacesReady");
  // The cache loses the tenant, which is there all the same.
  transport_.feed(kTenants, event("DELETED", tenant()));
  await("GET DeepSeekTenant", 1);
  EXPECT_EQ(count("PATCH Namespace"), 1);
  {
    const std::lock_guard lock(mutex_);
    tenant_there_ = false;
  }
  await("PATCH Namespace", 2);
}

}  // namespace
}  // namespace dsm::runtime
