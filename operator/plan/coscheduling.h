// PodGroups (scheduling.x-k8s.io) of the coscheduling plugin: a scheduler that has it gives nodes
// to all pods that name a PodGroup, or to none. Where the cluster has the kind and a model names
// its scheduler, each group of several pods has one, called as the group is. Pods name it for life:
// it is decided when their group is made, and a pod that is made again does as the others of its
// group, because the plugin counts those that name the PodGroup (v0.33). Pure; private to
// operator/plan.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "operator/api/spec.h"
#include "operator/plan/observed.h"

namespace dsm::plan {

struct Group;
struct Look;
struct Owner;
struct Plan;

inline constexpr std::string_view kPodGroup = "PodGroup";
inline constexpr std::string_view kPodGroupLabel = "scheduling.x-k8s.io/pod-group";

// Whether the pods of a group that is made now are bound together.
bool binds_together(const Observed& observed, const api::Spec& spec);

nlohmann::json pod_group_json(const Owner& owner, const std::string& group, int pods);

// Those of the groups that are there.
std::vector<nlohmann::json> wanted_pod_groups(const Look& look, const std::vector<Group>& groups);

// Removes our own PodGroups whose group is not there any more and not among the names of those that
// are being made.
void remove_unused_pod_groups(const Look& look, const std::vector<Group>& groups,
                              const std::vector<std::string>& made, Plan& plan);

// The scheduler's words are about the group's other pods, not about a node for this one.
bool waits_for_another(std::string_view words);

}  // namespace dsm::plan
