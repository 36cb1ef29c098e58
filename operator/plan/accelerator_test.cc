// What a GPU changes about a pod, about the nodes that it may be on, and about its image.
#include "operator/plan/accelerator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "operator/plan/drain.h"
#include "operator/plan/pod.h"

namespace dsm::plan {
namespace {

using nlohmann::json;
using testing::Contains;
using testing::Not;

api::Spec spec_of(json spec) {
  spec["model"]["uri"] = "image:///models/deepseek-tiny";
  auto parsed = api::parse_spec(spec);
  EXPECT_TRUE(parsed) << parsed.error().message;
  return parsed.value_or(api::Spec{});
}

// A spec on GPUs, with more said.
json on_gpus(const json& more = json::object()) {
  json spec = {{"accelerator", {{"resource", "nvidia.com/gpu"}}}};
  spec.merge_patch(more);
  return spec;
}

json pod(const json& spec, const Config& config = {}) {
  return pod_json({"tiny", "team", "uid-1"}, {"abcd1234", spec_of(spec), "worker:1", 1}, {0, 0, {}},
                  config)["spec"];
}
const json& container(const json& pod_spec) {
  return pod_spec["containers"][0];
}

// nullptr: it is not set.
json variable(const json& pod_spec, const char* name) {
  for (const json& one : container(pod_spec)["env"]) {
    if (one["name"] == name) return one["value"];
  }
  return nullptr;
}

TEST(Accelerator, a_cpu_model_has_nothing_of_it) {
  const json made = pod({{"parallelism", {{"tensor", 2}}}});
  EXPECT_THAT(container(made)["args"], Not(Contains("--device")));
  EXPECT_EQ(container(made)["resources"], json::object());
  EXPECT_EQ(made["volumes"].size(), 2U);  // tmp and internal
  EXPECT_EQ(variable(made, "NCCL_SOCKET_IFNAME"), nullptr);
  EXPECT_FALSE(made.contains("affinity"));
}

TEST(Accelerator, a_pod_asks_for_a_gpu_for_each_of_its_ranks) {
  struct Case {
    int tensor;
    int ranks_per_pod;
    const char* gpus;
  };
  for (const Case& c : {Case{1, 1, "1"}, Case{4, 1, "1"}, Case{4, 2, "2"}, Case{8, 8, "8"}}) {
    const json made =
        pod(on_gpus({{"parallelism", {{"tensor", c.tensor}, {"ranksPerPod", c.ranks_per_pod}}},
                     {"template", {{"resources", {{"limits", {{"memory", "32Gi"}}}}}}}}));
    const json& resources = container(made)["resources"];
    EXPECT_EQ(resources["requests"], json({{"nvidia.com/gpu", c.gpus}}));
    EXPECT_EQ(resources["limits"], json({{"nvidia.com/gpu", c.gpus}, {"memory", "32Gi"}}));
    const json& args = container(made)["args"];
    const auto device = std::ranges::find(args, "--device");
    ASSERT_NE(device, args.end());
    EXPECT_EQ(*(device + 1), "cuda");
  }
}

TEST(Accelerator, products_are_a_rule_beside_the_nodes_to_avoid) {
  const json spec = on_gpus({{"accelerator", {{"product", {"NVIDIA-H200", "NVIDIA-B200"}}}}});
  const json made = pod_json({"tiny", "team", "uid-1"}, {"abcd1234", spec_of(spec), "worker:1", 1},
                             {0, 0, {"bad-node"}}, {});
  const json& nodes = made["spec"]["affinity"]["nodeAffinity"];
  const json& terms = nodes["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
  ASSERT_EQ(terms.size(), 1U);
  EXPECT_EQ(terms[0]["matchExpressions"],
            json::array({{{"key", "nvidia.com/gpu.product"},
                          {"operator", "In"},
                          {"values", {"NVIDIA-H200", "NVIDIA-B200"}}}}));
  EXPECT_EQ(nodes["preferredDuringSchedulingIgnoredDuringExecution"].size(), 1U);
}

TEST(Accelerator, shared_memory_is_bounded_memory) {
  const json made = pod(on_gpus());
  EXPECT_EQ(made["volumes"].back(),
            json({{"name", "shm"}, {"emptyDir", {{"medium", "Memory"}, {"sizeLimit", "1Gi"}}}}));
  EXPECT_EQ(container(made)["volumeMounts"].back(),
            json({{"name", "shm"}, {"mountPath", "/dev/shm"}}));
  // As Pod Security "restricted" wants it, like any other.
  EXPECT_EQ(container(made)["securityContext"]["capabilities"],
            json({{"drop", json::array({"ALL"})}}));
}

TEST(Accelerator, nccl_is_told_of_the_network_and_the_user_has_the_last_word) {
  const json tensor = {{"parallelism", {{"tensor", 2}}}};
  EXPECT_EQ(variable(pod(on_gpus()), "NCCL_SOCKET_IFNAME"), nullptr) << "one rank talks to nobody";
  const json plain = pod(on_gpus(tensor));
  EXPECT_EQ(variable(plain, "NCCL_SOCKET_IFNAME"), "=eth0");
  EXPECT_EQ(variable(plain, "NCCL_IB_DISABLE"), "1");
  json said = on_gpus(tensor);
  said["template"]["env"] = {{{"name", "NCCL_SOCKET_IFNAME"}, {"value", "net1"}}};
  EXPECT_EQ(variable(pod(said), "NCCL_SOCKET_IFNAME"), "net1");
}

TEST(Accelerator, rdma_is_a_resource_of_pods_that_have_others_to_talk_to) {
  Config config;
  config.rdma_resource = "nvidia.com/hostdev";
  json spec = on_gpus(
      {{"accelerator", {{"rdma", true}}}, {"parallelism", {{"tensor", 4}, {"ranksPerPod", 2}}}});
  const json made = pod(spec, config);
  for (const char* bound : {"requests", "limits"}) {
    EXPECT_EQ(container(made)["resources"][bound]["nvidia.com/hostdev"], "1") << bound;
  }
  EXPECT_EQ(variable(made, "NCCL_IB_DISABLE"), nullptr);
  spec["parallelism"].erase("ranksPerPod");
  const json alone = pod(spec, config);
  EXPECT_FALSE(container(alone)["resources"]["limits"].contains("nvidia.com/hostdev"));
  EXPECT_EQ(variable(alone, "NCCL_IB_DISABLE"), "1");
}

TEST(Accelerator, the_runtime_class_is_that_of_pods_on_gpus) {
  Config config;
  EXPECT_FALSE(pod(on_gpus(), config).contains("runtimeClassName"));
  config.gpu_runtime_class = "nvidia";
  EXPECT_EQ(pod(on_gpus(), config)["runtimeClassName"], "nvidia");
  EXPECT_FALSE(pod(json::object(), config).contains("runtimeClassName"));
}

TEST(Accelerator, the_taint_of_gpu_nodes_is_tolerated_unless_something_is_said_of_it) {
  const auto keys = [](const json& placement) {
    std::vector<std::string> out;
    for (const auto& t : tolerations_of(spec_of(on_gpus({{"placement", placement}})))) {
      out.push_back(t.key + ":" + t.effect);
    }
    return out;
  };
  EXPECT_THAT(keys(json::object()), testing::ElementsAre("nvidia.com/gpu:NoSchedule"));
  const json own = {{{"key", "nvidia.com/gpu"}, {"value", "present"}}};
  EXPECT_THAT(keys({{"tolerations", own}}), testing::ElementsAre("nvidia.com/gpu:"));
  EXPECT_TRUE(tolerations_of(spec_of(json::object())).empty());
  EXPECT_THAT(pod(on_gpus())["tolerations"],
              Contains(json(
                  {{"key", "nvidia.com/gpu"}, {"operator", "Exists"}, {"effect", "NoSchedule"}})));
}

// Else every group would leave the node again as soon as it is on it.
TEST(Accelerator, that_taint_does_not_empty_a_node) {
  const NodeView node{"gpu-1", true, false, {{"nvidia.com/gpu", "present", "NoSchedule"}}};
  EXPECT_FALSE(leaving(node, tolerations_of(spec_of(on_gpus()))));
  EXPECT_TRUE(leaving(node, tolerations_of(spec_of(json::object()))));
}

TEST(Accelerator, gpus_have_an_image_of_their_own) {
  Config config;
  config.worker_image = "worker:1";
  config.worker_image_cuda = "worker-cuda:1";
  EXPECT_EQ(default_image(config, spec_of(json::object())), "worker:1");
  EXPECT_EQ(default_image(config, spec_of(on_gpus())), "worker-cuda:1");
}

}  // namespace
}  // namespace dsm::plan
