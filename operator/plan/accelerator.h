// What a GPU changes about a worker pod: resources, nodes, image, shared memory, NCCL's settings.
// Private to operator/plan.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "operator/api/spec.h"
#include "operator/plan/observed.h"

namespace dsm::plan {

// The worker image of models that name none.
const std::string& default_image(const Config& config, const api::Spec& spec);

// Those of the spec, and that of the taint by which clusters keep other pods off their GPUs, unless
// the spec says something about it.
std::vector<api::Toleration> tolerations_of(const api::Spec& spec);

// Pods of its groups use a resource of RDMA: there are several, and they shall.
bool uses_rdma(const api::Spec& spec);

// Completes the pod spec of a model that computes on GPUs; any other is left as it is.
void ask_for_gpus(const api::Spec& spec, const Config& config, nlohmann::json& pod_spec);

}  // namespace dsm::plan
