#include "operator/plan/accelerator.h"

#include <algorithm>

namespace dsm::plan {
namespace {

using nlohmann::json;

// By NVIDIA's GPU feature discovery.
constexpr const char* kProductLabel = "nvidia.com/gpu.product";

// NCCL keeps buffers of the ranks of one pod there; a container runtime gives 64 MiB, of which NCCL
// runs out ("Docker" in the troubleshooting of its user guide, which advises 1 GiB). What is used
// counts to the container's memory limit.
constexpr const char* kSharedMemory = "1Gi";

// Variables of the container that the user has not set:
// docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html
void set_nccl(const api::Spec& spec, json& container) {
  const auto set = [&](const char* name, const char* value) {
    const bool said = std::ranges::any_of(
        container["env"], [&](const json& variable) { return variable.value("name", "") == name; });
    if (!said) container["env"].push_back({{"name", name}, {"value", value}});
  };
  // The interface with the pod's address, which ranks tell each other; a pod may have others, of
  // which NCCL would take one by its name.
  set("NCCL_SOCKET_IFNAME", "=eth0");
  if (!uses_rdma(spec)) set("NCCL_IB_DISABLE", "1");
}

json of_products(const std::vector<std::string>& products) {
  const json expression = {{"key", kProductLabel}, {"operator", "In"}, {"values", products}};
  return {{"nodeSelectorTerms", json::array({{{"matchExpressions", json::array({expression})}}})}};
}

}  // namespace

const std::string& default_image(const Config& config, const api::Spec& spec) {
  return spec.accelerator.gpu() ? config.worker_image_cuda : config.worker_image;
}

std::vector<api::Toleration> tolerations_of(const api::Spec& spec) {
  std::vector<api::Toleration> all = spec.placement.tolerations;
  const std::string& resource = spec.accelerator.resource;
  const bool said = std::ranges::any_of(all, [&](const api::Toleration& t) {
    return t.key == resource || (t.key.empty() && t.op == "Exists");
  });
  if (spec.accelerator.gpu() && !said) {
    all.push_back(
        {.key = resource, .op = "Exists", .value = "", .effect = "NoSchedule", .seconds = {}});
  }
  return all;
}

bool uses_rdma(const api::Spec& spec) {
  return spec.accelerator.rdma && spec.pods_per_group() > 1;
}

void ask_for_gpus(const api::Spec& spec, const Config& config, json& pod_spec) {
  if (!spec.accelerator.gpu()) return;
  json& container = pod_spec["containers"][0];
  container["args"].push_back("--device");
  container["args"].push_back("cuda");
  // Requests of such resources cannot differ from their limits.
  for (const char* bound : {"requests", "limits"}) {
    json& resources = container["resources"][bound];
    resources[spec.accelerator.resource] = std::to_string(spec.ranks_per_pod());
    if (uses_rdma(spec)) resources[config.rdma_resource] = "1";
  }
  if (spec.parallelism.tensor > 1) set_nccl(spec, container);
  if (!config.gpu_runtime_class.empty()) pod_spec["runtimeClassName"] = config.gpu_runtime_class;
  pod_spec["volumes"].push_back(
      {{"name", "shm"}, {"emptyDir", {{"medium", "Memory"}, {"sizeLimit", kSharedMemory}}}});
  container["volumeMounts"].push_back({{"name", "shm"}, {"mountPath", "/dev/shm"}});
  if (!spec.accelerator.product.empty()) {
    pod_spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
        of_products(spec.accelerator.product);
  }
}

}  // namespace dsm::plan
