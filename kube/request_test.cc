#include "kube/request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace dsm::kube {
namespace {

using nlohmann::json;
using ::testing::Contains;
using ::testing::Pair;

TEST(Request, CoreKindsLiveUnderApiAndOthersUnderApis) {
  EXPECT_EQ(get_request(kPods, "default", "web-0").target, "/api/v1/namespaces/default/pods/web-0");
  EXPECT_EQ(get_request(kDeepSeekModels, "team-a", "r1").target,
            "/apis/deepseek-operator.io/v1alpha1/namespaces/team-a/deepseekmodels/r1");
  EXPECT_EQ(get_request(kLeases, "kube-system", "op").target,
            "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/op");
}

TEST(Request, KindsAreDiscoveredByGroupAndVersion) {
  EXPECT_EQ(discovery_request(kPodGroups).target, "/apis/scheduling.x-k8s.io/v1alpha1");
  EXPECT_EQ(discovery_request(kPods).target, "/api/v1");
}

TEST(Request, AListWithoutNamespaceCoversAllNamespaces) {
  EXPECT_EQ(list_request(kPods, "", {}).target, "/api/v1/pods?limit=500");
}

TEST(Request, AClusterScopedKindIgnoresTheNamespace) {
  constexpr Resource kNodes{"", "v1", "nodes", "Node", false};
  EXPECT_EQ(get_request(kNodes, "default", "n1").target, "/api/v1/nodes/n1");
}

TEST(Request, MetadataAloneIsAskedForByItsMediaType) {
  const HttpRequest request = get_metadata_request(kSecrets, "ns", "r1-internal");
  EXPECT_EQ(request.target, "/api/v1/namespaces/ns/secrets/r1-internal");
  EXPECT_THAT(request.headers,
              Contains(Pair("Accept",
                            ::testing::HasSubstr("as=PartialObjectMetadata;g=meta.k8s.io;v=v1"))));
}

TEST(Request, ALogSaysHowMuchAndWhose) {
  EXPECT_EQ(log_request("ns", "p", {}).target, "/api/v1/namespaces/ns/pods/p/log");
  EXPECT_EQ(
      log_request("ns", "p", {.follow = true, .previous = true, .tail_lines = 0, .limit_bytes = 9})
          .target,
      "/api/v1/namespaces/ns/pods/p/log?follow=true&previous=true&tailLines=0&limitBytes=9");
}

TEST(Request, SelectorsAreEncoded) {
  ListOptions options;
  options.label_selector = "app.kubernetes.io/name=deepseek-worker,x in (a b)";
  options.resource_version = "0";
  EXPECT_EQ(list_request(kPods, "default", options).target,
            "/api/v1/namespaces/default/pods?labelSelector=app.kubernetes.io%2Fname%3Ddeepseek-"
            "worker%2Cx%20in%20%28a%20b%29&limit=500&resourceVersion=0");
}

TEST(Request, AFollowingPageSendsTheTokenAndNoResourceVersion) {
  ListOptions options;
  options.resource_version = "0";
  options.continue_token = "abc=";
  EXPECT_EQ(list_request(kServices, "ns", options).target,
            "/api/v1/namespaces/ns/services?limit=500&continue=abc%3D");
}

TEST(Request, AWatchAsksForBookmarksAndATimeLimit) {
  WatchOptions options;
  options.resource_version = "17";
  options.timeout_s = 321;
  EXPECT_EQ(watch_request(kPods, "", options).target,
            "/api/v1/pods?watch=true&allowWatchBookmarks=true&resourceVersion=17"
            "&timeoutSeconds=321");
}

TEST(Request, CreatePostsToTheCollectionAndIsNotRepeated) {
  const HttpRequest request = create_request(kPods, "default", R"({"kind":"Pod"})", "operator");
  EXPECT_EQ(request.method, "POST");
  EXPECT_EQ(request.target, "/api/v1/namespaces/default/pods?fieldManager=operator");
  EXPECT_EQ(request.body, R"({"kind":"Pod"})");
  EXPECT_THAT(request.headers, Contains(Pair("Content-Type", "application/json")));
  EXPECT_FALSE(request.idempotent);
}

TEST(Request, ReplacePutsTheObjectAndIsNotRepeated) {
  const HttpRequest request = replace_request(kLeases, "ns", "op", "{}", "operator");
  EXPECT_EQ(request.method, "PUT");
  EXPECT_EQ(request.target,
            "/apis/coordination.k8s.io/v1/namespaces/ns/leases/op?fieldManager=operator");
  EXPECT_FALSE(request.idempotent);
}

TEST(Request, ApplyNamesItsManagerAndForces) {
  const HttpRequest request = apply_request(kServices, "ns", "r1", R"({"a":1})", "operator");
  EXPECT_EQ(request.method, "PATCH");
  EXPECT_EQ(request.target, "/api/v1/namespaces/ns/services/r1?fieldManager=operator&force=true");
  EXPECT_EQ(request.body, R"({"a":1})");
  EXPECT_THAT(request.headers, Contains(Pair("Content-Type", "application/apply-patch+yaml")));
  EXPECT_TRUE(request.idempotent);
}

TEST(Request, StatusIsAppliedToTheSubresource) {
  EXPECT_EQ(
      apply_request(kDeepSeekModels, "ns", "r1", "{}", "operator-status", true, "status").target,
      "/apis/deepseek-operator.io/v1alpha1/namespaces/ns/deepseekmodels/r1/status"
      "?fieldManager=operator-status&force=true");
  EXPECT_EQ(apply_request(kServices, "ns", "r1", "{}", "m", false).target,
            "/api/v1/namespaces/ns/services/r1?fieldManager=m&force=false");
}

TEST(Request, AMergePatchSaysSo) {
  const HttpRequest request = merge_patch_request(kEvents, "ns", "e1", "{}", "operator");
  EXPECT_EQ(request.target, "/apis/events.k8s.io/v1/namespaces/ns/events/e1?fieldManager=operator");
  EXPECT_THAT(request.headers, Contains(Pair("Content-Type", "application/merge-patch+json")));
}

TEST(Request, AStrategicPatchSaysSo) {
  const HttpRequest request = strategic_patch_request(kPods, "ns", "p", "{}", "operator");
  EXPECT_EQ(request.method, "PATCH");
  EXPECT_EQ(request.target, "/api/v1/namespaces/ns/pods/p?fieldManager=operator");
  EXPECT_THAT(request.headers,
              Contains(Pair("Content-Type", "application/strategic-merge-patch+json")));
}

TEST(Request, DeleteCarriesItsPreconditions) {
  DeleteOptions options;
  options.uid = "u-1";
  options.resource_version = "42";
  options.grace_period_s = 0;
  options.propagation = "Background";
  const HttpRequest request = delete_request(kPods, "ns", "p", options);
  EXPECT_EQ(request.method, "DELETE");
  EXPECT_EQ(request.target, "/api/v1/namespaces/ns/pods/p");
  EXPECT_EQ(json::parse(request.body),
            (json{{"apiVersion", "v1"},
                  {"kind", "DeleteOptions"},
                  {"preconditions", {{"uid", "u-1"}, {"resourceVersion", "42"}}},
                  {"gracePeriodSeconds", 0},
                  {"propagationPolicy", "Background"}}));
  EXPECT_TRUE(request.idempotent);
}

TEST(Request, ADeleteByNameAloneIsNotRepeated) {
  const HttpRequest request = delete_request(kPods, "ns", "p", {});
  EXPECT_EQ(json::parse(request.body), (json{{"apiVersion", "v1"}, {"kind", "DeleteOptions"}}));
  EXPECT_FALSE(request.idempotent);
}

TEST(Request, NamesCannotLeaveTheirPlaceInThePath) {
  EXPECT_EQ(get_request(kPods, "a/b", "../secrets/x?y").target,
            "/api/v1/namespaces/a%2Fb/pods/..%2Fsecrets%2Fx%3Fy");
}

}  // namespace
}  // namespace dsm::kube
