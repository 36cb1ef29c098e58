#include "operator/plan/pod.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "operator/plan/observed.h"

namespace dsm::plan {
namespace {

using nlohmann::json;
using testing::Contains;
using testing::ElementsAre;
using testing::Not;

const Owner kOwner{"tiny", "team", "uid-1"};

Revision revision(json spec) {
  if (!spec.contains("model")) spec["model"]["uri"] = "image:///models/deepseek-tiny";
  auto parsed = api::parse_spec(spec);
  EXPECT_TRUE(parsed) << parsed.error().message;
  return {"abcd1234", parsed ? *parsed : api::Spec{}, "worker:1", 1};
}

json pod(const json& spec, int index = 0) {
  return pod_json(kOwner, revision(spec), {2, index, {}}, {});
}

std::vector<std::string> args(const json& pod) {
  return pod["spec"]["containers"][0]["args"];
}

// The value after a flag; "" when the flag is not there.
std::string flag(const json& pod, const std::string& name) {
  const auto all = args(pod);
  const auto it = std::ranges::find(all, name);
  return it == all.end() ? "" : *(it + 1);
}

TEST(Pod, the_worker_gets_its_command_line) {
  EXPECT_THAT(
      args(pod({{"parallelism", {{"tensor", 4}, {"ranksPerPod", 2}}}, {"drainSeconds", 20}}, 1)),
      ElementsAre("--model", "/models/deepseek-tiny", "--served-name", "tiny", "--port", "8000",
                  "--internal-port", "8001", "--internal-token-file", "/etc/dsm/internal/token",
                  "--tensor-parallel", "4", "--ranks-per-pod", "2", "--pod-index", "1",
                  "--leader-host", "tiny-abcd1234-2-0.tiny-ranks.team.svc", "--advertise-host",
                  "$(POD_IP)", "--control-port", "8002", "--prefix-caching", "true",
                  "--deterministic", "true", "--threads", "0", "--drain-timeout", "20",
                  "--log-format", "json", "--model-name", "tiny", "--namespace", "team", "--group",
                  "tiny-abcd1234-2", "--revision", "abcd1234", "--pod-name", "tiny-abcd1234-2-1"));
}

TEST(Pod, a_group_of_one_pod_needs_no_leader_host) {
  const json one = pod({{"parallelism", {{"tensor", 2}, {"ranksPerPod", 2}}}});
  EXPECT_THAT(args(one), Not(Contains("--leader-host")));
  EXPECT_EQ(flag(one, "--tensor-parallel"), "2");
}

TEST(Pod, attention_is_data_parallel_where_that_is_asked_for) {
  EXPECT_THAT(args(pod(json::object())), Not(Contains("--data-parallel-attention")));
  const json asked =
      pod({{"parallelism", {{"tensor", 2}}}, {"engine", {{"dataParallelAttention", true}}}});
  EXPECT_EQ(flag(asked, "--data-parallel-attention"), "true");
}

TEST(Pod, experts_and_activations_are_as_the_spec_says) {
  const json plain = pod(json::object());
  EXPECT_THAT(args(plain), Not(Contains("--expert-parallel")));
  EXPECT_THAT(args(plain), Not(Contains("--activation-quantization")));
  const json asked = pod({{"model", {{"uri", "pvc://a/b"}, {"activationQuantization", "FP8"}}},
                          {"parallelism", {{"tensor", 2}}},
                          {"engine", {{"expertParallel", true}, {"deterministic", false}}}});
  EXPECT_EQ(flag(asked, "--expert-parallel"), "true");
  EXPECT_EQ(flag(asked, "--activation-quantization"), "fp8");
}

TEST(Pod, a_gpu_is_not_asked_for_the_same_bits_unless_the_spec_does) {
  json gpu = {{"accelerator", {{"resource", "nvidia.com/gpu"}}}};
  EXPECT_EQ(flag(pod(json::object()), "--deterministic"), "true");
  EXPECT_EQ(flag(pod(gpu), "--deterministic"), "false");
  gpu["engine"] = {{"deterministic", true}};
  EXPECT_EQ(flag(pod(gpu), "--deterministic"), "true");
}

TEST(Pod, memory_is_mapped_for_sleep_where_that_is_asked_for) {
  EXPECT_THAT(args(pod(json::object())), Not(Contains("--sleep-mode")));
  EXPECT_EQ(flag(pod({{"engine", {{"sleepMode", true}}}}), "--sleep-mode"), "true");
}

TEST(Pod, engine_numbers_are_passed_only_when_given) {
  EXPECT_THAT(args(pod(json::object())), Not(Contains("--max-model-len")));
  const json given = pod({{"engine",
                           {{"maxModelLen", 512},
                            {"maxNumSeqs", 4},
                            {"maxNumBatchedTokens", 256},
                            {"kvCacheTokens", 2048},
                            {"kvCacheDtype", "BF16"},
                            {"prefixCaching", false},
                            {"threads", 1}}}});
  EXPECT_EQ(flag(given, "--max-model-len"), "512");
  EXPECT_EQ(flag(given, "--max-num-seqs"), "4");
  EXPECT_EQ(flag(given, "--max-num-batched-tokens"), "256");
  EXPECT_EQ(flag(given, "--kv-cache-tokens"), "2048");
  EXPECT_EQ(flag(given, "--kv-cache-dtype"), "bf16");
  EXPECT_EQ(flag(given, "--prefix-caching"), "false");
  EXPECT_EQ(flag(given, "--threads"), "1");
}

TEST(Pod, a_template_and_guesses_are_passed_only_when_given) {
  EXPECT_THAT(args(pod(json::object())), testing::AllOf(Not(Contains("--chat-template")),
                                                        Not(Contains("--speculative-method"))));
  const json given =
      pod({{"model", {{"uri", "image:///models/m"}, {"chatTemplate", "deepseek-v3.1"}}},
           {"engine", {{"speculation", {{"method", "Mtp"}, {"tokens", 3}}}}}});
  EXPECT_EQ(flag(given, "--chat-template"), "deepseek-v3.1");
  EXPECT_EQ(flag(given, "--speculative-method"), "mtp");
  EXPECT_EQ(flag(given, "--speculative-tokens"), "3");
  EXPECT_EQ(
      flag(pod({{"engine", {{"speculation", {{"method", "Ngram"}}}}}}), "--speculative-tokens"),
      "1");
}

TEST(Pod, a_quantisation_of_weights_is_passed_unless_it_is_the_checkpoints) {
  const auto with = [](const char* quantization) {
    return pod({{"model", {{"uri", "image:///models/m"}, {"quantization", quantization}}}});
  };
  EXPECT_THAT(args(with("Auto")), Not(Contains("--weight-quantization")));
  EXPECT_EQ(flag(with("INT8"), "--weight-quantization"), "int8");
  EXPECT_EQ(flag(with("INT4"), "--weight-quantization"), "int4");
  EXPECT_EQ(flag(with("FP8"), "--weight-quantization"), "fp8");
  EXPECT_EQ(flag(with("None"), "--weight-quantization"), "none");
}

TEST(Pod, a_leader_serves_grpc_when_the_model_wants_it) {
  const json spec = {{"engine", {{"grpc", true}}}, {"parallelism", {{"tensor", 2}}}};
  const json port = {{"name", "grpc"}, {"containerPort", 50051}};
  const auto ports = [](const json& made) { return made["spec"]["containers"][0]["ports"]; };
  EXPECT_EQ(flag(pod(spec), "--grpc-port"), "50051");
  EXPECT_THAT(ports(pod(spec)), Contains(port));
  for (const json& other : {pod(spec, 1), pod(json::object())}) {
    EXPECT_THAT(args(other), Not(Contains("--grpc-port")));
    EXPECT_THAT(ports(other), Not(Contains(port)));
  }
}

TEST(Pod, weights_on_a_claim_are_mounted_read_only) {
  const json claimed = pod({{"model", {{"uri", "pvc://weights/r1/7b"}, {"servedName", "r1"}}}});
  EXPECT_EQ(flag(claimed, "--model"), "/var/lib/deepseek/model/r1/7b");
  EXPECT_EQ(flag(claimed, "--served-name"), "r1");
  const json volume = claimed["spec"]["volumes"].back();
  EXPECT_EQ(volume["persistentVolumeClaim"]["claimName"], "weights");
  EXPECT_EQ(volume["persistentVolumeClaim"]["readOnly"], true);
  EXPECT_EQ(claimed["spec"]["containers"][0]["volumeMounts"].back()["readOnly"], true);
}

TEST(Pod, adapters_are_named_with_their_folders_on_every_pod) {
  EXPECT_THAT(args(pod(json::object())), Not(Contains("--lora-modules")));
  const json spec = {{"model", {{"uri", "pvc://weights/r1"}}},
                     {"parallelism", {{"tensor", 2}}},
                     {"adapters",
                      {{{"name", "sql"}, {"uri", "pvc://weights/adapters/sql"}},
                       {{"name", "acme/law:2"}, {"uri", "pvc://tuned.acme/law=2"}},
                       {{"name", "chat"}, {"uri", "pvc://tuned.acme"}},
                       {{"name", "tiny-de"}, {"uri", "image:///adapters/de"}}}}};
  for (const int index : {0, 1}) {
    const json made = pod(spec, index);
    EXPECT_EQ(flag(made, "--lora-modules"),
              "sql=/var/lib/deepseek/model/adapters/sql,"
              "acme/law:2=/var/lib/deepseek/adapters/tuned.acme/law=2,"
              "chat=/var/lib/deepseek/adapters/tuned.acme,tiny-de=/adapters/de");
    EXPECT_EQ(flag(made, "--max-loras"), "4");
    EXPECT_EQ(flag(made, "--max-lora-rank"), "256");
  }
}

TEST(Pod, a_claim_is_mounted_once_and_read_only_whatever_is_on_it) {
  const json made = pod({{"model", {{"uri", "image:///models/deepseek-tiny"}}},
                         {"adapters",
                          {{{"name", "a"}, {"uri", "pvc://tuned/a"}},
                           {{"name", "b"}, {"uri", "pvc://tuned/b"}},
                           {{"name", "c"}, {"uri", "pvc://more/c"}}}}});
  const json& volumes = made["spec"]["volumes"];
  const json& mounts = made["spec"]["containers"][0]["volumeMounts"];
  ASSERT_EQ(volumes.size(), 4U);  // tmp, internal and the two claims
  ASSERT_EQ(mounts.size(), 4U);
  const std::vector<std::string> claims = {"tuned", "more"};
  for (std::size_t i = 0; i < claims.size(); ++i) {
    const json& volume = volumes[2 + i];
    EXPECT_EQ(volume["persistentVolumeClaim"],
              json({{"claimName", claims[i]}, {"readOnly", true}}));
    EXPECT_EQ(mounts[2 + i], json({{"name", volume["name"]},
                                   {"mountPath", "/var/lib/deepseek/adapters/" + claims[i]},
                                   {"readOnly", true}}));
  }
  EXPECT_NE(volumes[2]["name"], volumes[3]["name"]);
}

TEST(Pod, runs_without_privileges) {
  const json made = pod(json::object());
  const json& spec = made["spec"];
  EXPECT_EQ(spec["automountServiceAccountToken"], false);
  EXPECT_EQ(spec["securityContext"]["runAsNonRoot"], true);
  EXPECT_EQ(spec["securityContext"]["runAsUser"], 65532);
  EXPECT_EQ(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
  const json& container = spec["containers"][0]["securityContext"];
  EXPECT_EQ(container["allowPrivilegeEscalation"], false);
  EXPECT_EQ(container["readOnlyRootFilesystem"], true);
  EXPECT_EQ(container["capabilities"]["drop"], json::array({"ALL"}));
}

TEST(Pod, the_grace_period_is_longer_than_the_drain) {
  EXPECT_EQ(pod({{"drainSeconds", 100}})["spec"]["terminationGracePeriodSeconds"], 115);
}

TEST(Pod, is_what_pod_view_reads_back) {
  json made = pod(json::object(), 1);
  made["metadata"]["uid"] = "u";
  const PodView view = pod_view(made);
  EXPECT_EQ(view.name, "tiny-abcd1234-2-1");
  EXPECT_EQ(view.revision, "abcd1234");
  EXPECT_EQ(view.group, 2);
  EXPECT_EQ(view.index, 1);
  EXPECT_EQ(view.owner_uid, "uid-1");
  EXPECT_EQ(made["spec"]["hostname"], view.name);
}

TEST(Pod, a_topology_key_holds_the_pods_of_a_group_together) {
  const json made = pod({{"parallelism", {{"tensor", 2}}},
                         {"placement", {{"topologyKey", "topology.kubernetes.io/zone"}}}});
  const json& terms =
      made["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
  ASSERT_EQ(terms.size(), 1U);
  EXPECT_EQ(terms[0]["topologyKey"], "topology.kubernetes.io/zone");
  // Its own labels, so that the first pod of the group is not held up by its own rule.
  for (const auto& [key, value] : terms[0]["labelSelector"]["matchLabels"].items()) {
    EXPECT_EQ(made["metadata"]["labels"][key], value) << key;
  }
  EXPECT_EQ(terms[0]["labelSelector"]["matchLabels"]["deepseek-operator.io/group"], "2");
  const json alone = pod({{"placement", {{"topologyKey", "topology.kubernetes.io/zone"}}}});
  EXPECT_FALSE(alone["spec"].contains("affinity"));
}

TEST(Pod, nodes_to_avoid_are_a_preference_and_no_part_of_the_name) {
  const json made = pod_json(kOwner, revision(json::object()), {2, 0, {"n1", "n2"}}, {});
  const json& avoid =
      made["spec"]["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"];
  ASSERT_EQ(avoid.size(), 2U);
  EXPECT_EQ(avoid[1]["preference"]["matchFields"][0]["operator"], "NotIn");
  EXPECT_EQ(avoid[1]["preference"]["matchFields"][0]["values"], json::array({"n2"}));
  EXPECT_EQ(made["metadata"]["name"], pod(json::object())["metadata"]["name"]);
}

TEST(Pod, template_and_placement_are_applied_and_own_labels_win) {
  const json made = pod({{"template",
                          {{"labels", {{"team", "a"}}},
                           {"annotations", {{"note", "x"}}},
                           {"env", {{{"name", "LANG"}, {"value", "C"}}}},
                           {"resources", {{"limits", {{"cpu", "2"}}}}}}},
                         {"placement",
                          {{"nodeSelector", {{"disk", "fast"}}},
                           {"priorityClassName", "high"},
                           {"tolerations",
                            {{{"key", "node.kubernetes.io/unreachable"},
                              {"operator", "Exists"},
                              {"effect", "NoExecute"},
                              {"tolerationSeconds", 5}}}}}}});
  EXPECT_EQ(made["metadata"]["labels"]["team"], "a");
  EXPECT_EQ(made["metadata"]["annotations"]["note"], "x");
  EXPECT_EQ(made["spec"]["nodeSelector"]["disk"], "fast");
  EXPECT_EQ(made["spec"]["priorityClassName"], "high");
  EXPECT_EQ(made["spec"]["containers"][0]["env"][1]["name"], "LANG");
  EXPECT_EQ(made["spec"]["containers"][0]["resources"]["limits"]["cpu"], "2");
  // The user's word on a taint stands; the other one has the operator's.
  ASSERT_EQ(made["spec"]["tolerations"].size(), 2U);
  EXPECT_EQ(made["spec"]["tolerations"][0]["tolerationSeconds"], 5);
  EXPECT_EQ(made["spec"]["tolerations"][1]["key"], "node.kubernetes.io/not-ready");
}

}  // namespace
}  // namespace dsm::plan
