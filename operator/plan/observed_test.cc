#include "operator/plan/observed.h"

#include <gtest/gtest.h>

#include "operator/plan/children.h"

namespace dsm::plan {
namespace {

using nlohmann::json;

TEST(PodView, reads_why_a_pod_does_not_run) {
  const json pod = json::parse(R"({
    "metadata": {"name": "p", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z",
      "deletionTimestamp": "2026-01-01T00:01:15Z",
      "labels": {"deepseek-operator.io/group": "x"}},
    "spec": {"nodeName": "n"},
    "status": {"phase": "Pending", "podIP": "10.0.0.1", "reason": "Evicted",
      "conditions": [
        {"type": "Ready", "status": "False"},
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
         "message": "0/3 nodes", "lastTransitionTime": "2026-01-01T00:00:05Z"}],
      "containerStatuses": [{"restartCount": 4,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
        "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "message": "tail\n"}}}]}
  })");
  const PodView view = pod_view(pod);
  EXPECT_EQ(view.group, -1);  // the label is no number
  EXPECT_EQ(view.node, "n");
  EXPECT_EQ(view.ip, "10.0.0.1");
  EXPECT_FALSE(view.ready);
  EXPECT_FALSE(view.running);
  EXPECT_EQ(view.restarts, 4);
  EXPECT_EQ(view.waiting_reason, "CrashLoopBackOff");
  EXPECT_EQ(view.exit_reason, "OOMKilled");
  EXPECT_EQ(view.exit_code, 137);
  EXPECT_EQ(view.exit_message, "tail");
  EXPECT_EQ(view.unschedulable_message, "0/3 nodes");
  EXPECT_EQ(view.unschedulable_since, from_rfc3339("2026-01-01T00:00:05Z"));
  EXPECT_EQ(view.deletion, from_rfc3339("2026-01-01T00:01:15Z"));
  EXPECT_EQ(view.status_reason, "Evicted");
}

TEST(PodView, reads_since_when_a_pod_is_ready) {
  const PodView view = pod_view(json::parse(R"({"status": {"conditions": [
      {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:41Z"}]}})"));
  EXPECT_TRUE(view.ready);
  EXPECT_EQ(view.ready_at, from_rfc3339("2026-01-01T00:00:41Z"));
  EXPECT_EQ(pod_view(json::object()).ready_at, std::nullopt);
}

TEST(PodView, keeps_the_beginning_of_what_a_scheduler_says) {
  const std::string words = "0/9 nodes are available: 9 Insufficient cpu. ";
  json pod = {{"status",
               {{"conditions",
                 {{{"type", "PodScheduled"},
                   {"status", "False"},
                   {"reason", "Unschedulable"},
                   {"message", words + std::string(254, '.') + "\u00e9 and more"}}}}}}};
  EXPECT_EQ(pod_view(pod).unschedulable_message, words + std::string(254, '.') + "...");
}

TEST(PodView, reads_whether_a_pod_names_the_pod_group_of_its_group) {
  json pod = {{"metadata", {{"name", "m-abcd1234-0-1"}}}};
  EXPECT_FALSE(pod_view(pod).bound_together);
  pod["metadata"]["labels"]["scheduling.x-k8s.io/pod-group"] = "m-abcd1234-0";
  EXPECT_TRUE(pod_view(pod).bound_together);
  pod["metadata"]["labels"]["scheduling.x-k8s.io/pod-group"] = "of-a-user";
  EXPECT_FALSE(pod_view(pod).bound_together);
}

TEST(PodView, reads_what_holds_a_pod) {
  const PodView view = pod_view(json::parse(R"({
      "metadata": {"finalizers": ["a", "kueue.x-k8s.io/managed"]},
      "spec": {"schedulingGates": [{"name": "kueue.x-k8s.io/admission"}, {"name": "b"}]}})"));
  EXPECT_EQ(view.gate, "kueue.x-k8s.io/admission");
  EXPECT_TRUE(view.queued);
  EXPECT_EQ(pod_view(json::object()).gate, "");
  EXPECT_FALSE(pod_view(json::object()).queued);
}

TEST(PodView, survives_objects_of_any_shape) {
  for (const char* text :
       {R"({"metadata": {"finalizers": {}}, "spec": {"schedulingGates": [1]}})", "null", "[]", "{}",
        R"({"metadata": 3, "status": {"conditions": {}}})",
        R"({"status": {"containerStatuses": [3], "conditions": [null, {"type": 1}]}})",
        R"({"metadata": {"labels": [], "ownerReferences": [{"controller": true}, 1]}})"}) {
    const PodView view = pod_view(json::parse(text));
    EXPECT_EQ(view.group, -1) << text;
    EXPECT_FALSE(view.ready) << text;
  }
}

TEST(PodView, keeps_the_end_of_a_long_message) {
  const std::string log = std::string(5000, 'x') + "é the last words";
  const json pod = {{"status",
                     {{"containerStatuses",
                       {{{"state", {{"terminated", {{"message", log}, {"exitCode", 1}}}}}}}}}}};
  const std::string kept = pod_view(pod).exit_message;
  EXPECT_LT(kept.size(), 310U);
  EXPECT_TRUE(kept.ends_with("the last words"));
  EXPECT_NO_THROW(json(kept).dump());
}

TEST(PodView, takes_a_workers_own_word_for_why_it_ended) {
  const auto ended_with = [](const std::string& words) {
    return pod_view({{"status",
                      {{"containerStatuses",
                        {{{"state", {{"terminated", {{"message", words}, {"exitCode", 1}}}}}}}}}}});
  };
  // Also when what follows is cut at its beginning.
  const PodView probed = ended_with("ProbeFailed: " + std::string(400, 'x') + " token 1 is 7\n");
  EXPECT_EQ(probed.exit_why, "ProbeFailed");
  EXPECT_TRUE(probed.exit_message.ends_with("token 1 is 7"));
  for (const char* words : {"ProbeFailed", "ProbeFailed:", "Unknown: x", "a ProbeFailed: x", ""}) {
    EXPECT_EQ(ended_with(words).exit_why, "") << words;
    EXPECT_EQ(ended_with(words).exit_message, words);
  }
}

TEST(PodView, reads_since_when_a_container_runs_and_whether_it_could_begin) {
  const json pod = json::parse(R"({"status": {
    "conditions": [
      {"type": "PodReadyToStartContainers", "status": "False"},
      {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:05Z"}],
    "containerStatuses": [{"state": {"running": {"startedAt": "2026-01-01T00:01:00Z"}}}]}})");
  const PodView view = pod_view(pod);
  EXPECT_FALSE(view.sandboxed);
  EXPECT_EQ(view.scheduled, from_rfc3339("2026-01-01T00:00:05Z"));
  EXPECT_EQ(view.started, from_rfc3339("2026-01-01T00:01:00Z"));
  EXPECT_TRUE(pod_view(json::object()).sandboxed);  // an older kubelet does not say
}

TEST(NodeView, reads_why_pods_should_leave) {
  const NodeView node = node_view(json::parse(R"({
    "metadata": {"name": "n"},
    "spec": {"unschedulable": true, "taints": [
      {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"},
      {"key": "spot", "value": "ends", "effect": "NoExecute"}]},
    "status": {"conditions": [
      {"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": "True"}]}})"));
  EXPECT_EQ(node.name, "n");
  EXPECT_TRUE(node.unschedulable);
  EXPECT_TRUE(node.ready);
  ASSERT_EQ(node.taints.size(), 2U);
  EXPECT_EQ(node.taints[1], (Taint{"spot", "ends", "NoExecute"}));
}

TEST(NodeView, survives_objects_of_any_shape) {
  for (const char* text : {"null", "[]", "{}", R"({"spec": {"taints": [3], "unschedulable": "x"}})",
                           R"({"spec": [], "status": {"conditions": {"type": 1}}})"}) {
    EXPECT_FALSE(node_view(json::parse(text)).ready) << text;
    EXPECT_FALSE(node_view(json::parse(text)).unschedulable) << text;
  }
}

TEST(LeaderStatus, is_read_from_a_line) {
  const WallTime now = from_rfc3339("2026-01-01T00:00:00Z");
  const auto status =
      leader_status(R"({"phase":"Ready","queueDepth":3,"running":2,"kvUsed":1,"kvTotal":64,)"
                    R"("tokensPerSecond":12.5,"maxModelLen":2048,"loadedBytes":7,"totalBytes":9})",
                    now);
  ASSERT_TRUE(status);
  EXPECT_EQ(status->queue_depth, 3);
  EXPECT_EQ(status->running, 2);
  EXPECT_EQ(status->tokens_per_second, 12.5);
  EXPECT_EQ(status->received, now);
  EXPECT_FALSE(leader_status("not json", now));
  EXPECT_FALSE(leader_status("[1]", now));
}

TEST(Children, a_field_that_we_do_not_own_is_no_difference) {
  const Owner owner{"m", "ns", "u"};
  json there = serving_service_json(owner, false);
  EXPECT_TRUE(says_the_same(serving_service_json(owner, false), there));
  there["spec"]["clusterIP"] = "10.96.0.7";
  there["spec"]["ports"][0]["nodePort"] = 30000;
  there["metadata"]["resourceVersion"] = "5";
  EXPECT_TRUE(says_the_same(serving_service_json(owner, false), there));
  there["spec"]["selector"].erase("deepseek-operator.io/role");
  EXPECT_FALSE(says_the_same(serving_service_json(owner, false), there));
}

TEST(Children, a_second_port_is_a_difference) {
  const Owner owner{"m", "ns", "u"};
  json there = serving_service_json(owner, false);
  there["spec"]["ports"].push_back({{"name", "other"}, {"port", 81}});
  EXPECT_FALSE(says_the_same(serving_service_json(owner, false), there));
}

TEST(Children, the_service_has_a_port_for_grpc_when_the_model_wants_it) {
  const Owner owner{"m", "ns", "u"};
  const json ports = serving_service_json(owner, true)["spec"]["ports"];
  ASSERT_EQ(ports.size(), 2U);
  EXPECT_EQ(ports[1]["name"], "grpc");
  EXPECT_EQ(ports[1]["port"], 50051);
  EXPECT_EQ(ports[1]["targetPort"], "grpc") << "pods of older revisions have none";
  EXPECT_EQ(serving_service_json(owner, false)["spec"]["ports"].size(), 1U);
}

TEST(Children, a_revision_is_read_back_with_its_image) {
  const auto spec = api::parse_spec({{"model", {{"uri", "pvc://w/x"}}}, {"replicas", 5}});
  ASSERT_TRUE(spec);
  const Owner owner{"m", "ns", "u"};
  const auto back = parse_revision(revision_json(owner, {"abcd1234", *spec, "worker:1", 7}));
  ASSERT_TRUE(back);
  EXPECT_EQ(back->name, "abcd1234");
  EXPECT_EQ(back->image, "worker:1");
  EXPECT_EQ(back->number, 7);
  EXPECT_EQ(back->spec.model.uri, "pvc://w/x");
  EXPECT_EQ(api::revision_of(back->spec), api::revision_of(*spec));
  EXPECT_FALSE(parse_revision(json::object()));
}

TEST(Children, a_revision_of_an_older_release_keeps_its_pods) {
  const json spec = {{"model", {{"uri", "pvc://w/x"}}},
                     {"accelerator", {{"resource", "nvidia.com/gpu"}}},
                     {"parallelism", {{"tensor", 4}, {"ranksPerPod", 1}}}};
  json object =
      revision_json({"m", "ns", "u"}, {"abcd1234", *api::parse_spec(spec), "worker:1", 7});
  object["data"]["spec"]["parallelism"].erase("ranksPerPod");  // it was the default
  const auto back = parse_revision(object);
  ASSERT_TRUE(back);
  EXPECT_EQ(back->spec.pods_per_group(), 4);
}

TEST(Children, are_owned_by_the_model_so_that_nothing_is_left_behind) {
  const Owner owner{"m", "ns", "u"};
  for (const json& child : {serving_service_json(owner, false), ranks_service_json(owner),
                            token_secret_json(owner, "t")}) {
    EXPECT_EQ(controller_uid(child), "u");
    EXPECT_EQ(child["metadata"]["ownerReferences"][0]["blockOwnerDeletion"], true);
    EXPECT_EQ(child["metadata"]["labels"]["app.kubernetes.io/managed-by"], "deepseek-operator");
  }
  EXPECT_EQ(ranks_service_json(owner)["spec"]["publishNotReadyAddresses"], true);
}

}  // namespace
}  // namespace dsm::plan
