// The kinds of Kubernetes objects that this project talks about, as compile-time values.
#pragma once

#include <string>
#include <string_view>

namespace dsm::kube {

struct Resource {
  std::string_view group;  // "" for the core group
  std::string_view version;
  std::string_view plural;  // as in URLs
  std::string_view kind;
  bool namespaced = true;

  // "v1" or "apps/v1", as in an object's apiVersion.
  std::string api_version() const {
    return group.empty() ? std::string(version) : std::string(group) + "/" + std::string(version);
  }
  bool operator==(const Resource&) const = default;
};

inline constexpr Resource kPods{"", "v1", "pods", "Pod"};
inline constexpr Resource kServices{"", "v1", "services", "Service"};
inline constexpr Resource kSecrets{"", "v1", "secrets", "Secret"};
inline constexpr Resource kConfigMaps{"", "v1", "configmaps", "ConfigMap"};
inline constexpr Resource kControllerRevisions{"apps", "v1", "controllerrevisions",
                                               "ControllerRevision"};
inline constexpr Resource kPodDisruptionBudgets{"policy", "v1", "poddisruptionbudgets",
                                                "PodDisruptionBudget"};
inline constexpr Resource kNodes{"", "v1", "nodes", "Node", /*namespaced=*/false};
inline constexpr Resource kLeases{"coordination.k8s.io", "v1", "leases", "Lease"};
inline constexpr Resource kEvents{"events.k8s.io", "v1", "events", "Event"};
// The same Events as they are read: the role `view` knows them in the core group alone.
inline constexpr Resource kCoreEvents{"", "v1", "events", "Event"};
inline constexpr Resource kAutoscalers{"autoscaling", "v2", "horizontalpodautoscalers",
                                       "HorizontalPodAutoscaler"};
inline constexpr Resource kApiServices{"apiregistration.k8s.io", "v1", "apiservices", "APIService",
                                       false};
inline constexpr Resource kClusterRoles{"rbac.authorization.k8s.io", "v1", "clusterroles",
                                        "ClusterRole", false};
inline constexpr Resource kSubjectAccessReviews{
    "authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", false};
inline constexpr Resource kDeepSeekModels{"deepseek-operator.io", "v1alpha1", "deepseekmodels",
                                          "DeepSeekModel"};
inline constexpr Resource kDeepSeekTenants{"deepseek-operator.io", "v1alpha1", "deepseektenants",
                                           "DeepSeekTenant", /*namespaced=*/false};
inline constexpr Resource kNamespaces{"", "v1", "namespaces", "Namespace", false};
inline constexpr Resource kResourceQuotas{"", "v1", "resourcequotas", "ResourceQuota"};
inline constexpr Resource kLimitRanges{"", "v1", "limitranges", "LimitRange"};
inline constexpr Resource kNetworkPolicies{"networking.k8s.io", "v1", "networkpolicies",
                                           "NetworkPolicy"};
inline constexpr Resource kRoleBindings{"rbac.authorization.k8s.io", "v1", "rolebindings",
                                        "RoleBinding"};
// Of Kueue. Both versions are served by releases of the last year; the newer one first.
inline constexpr Resource kWorkloads{"kueue.x-k8s.io", "v1beta2", "workloads", "Workload"};
inline constexpr Resource kOldWorkloads{"kueue.x-k8s.io", "v1beta1", "workloads", "Workload"};
// Of the coscheduling plugin of Kubernetes' scheduler.
inline constexpr Resource kPodGroups{"scheduling.x-k8s.io", "v1alpha1", "podgroups", "PodGroup"};
inline constexpr Resource kPriorityClasses{"scheduling.k8s.io", "v1", "priorityclasses",
                                           "PriorityClass", false};

}  // namespace dsm::kube
