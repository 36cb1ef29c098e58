// The names that objects of a model carry, each said once. Values only.
#pragma once

#include <string>
#include <string_view>

namespace dsm::api {

inline constexpr std::string_view kGroup = "deepseek-operator.io";
inline constexpr std::string_view kVersion = "v1alpha1";
inline constexpr std::string_view kApiVersion = "deepseek-operator.io/v1alpha1";
inline constexpr std::string_view kKind = "DeepSeekModel";
inline constexpr std::string_view kPlural = "deepseekmodels";

inline constexpr std::string_view kTenantKind = "DeepSeekTenant";
inline constexpr std::string_view kTenantPlural = "deepseektenants";

// The field manager of everything that the operator applies.
inline constexpr std::string_view kFieldManager = "deepseek-operator";

// Every child carries these two, so that one label selector finds all of them.
inline constexpr std::string_view kNameLabel = "app.kubernetes.io/name";
inline constexpr std::string_view kNameValue = "deepseek-worker";
inline constexpr std::string_view kManagedByLabel = "app.kubernetes.io/managed-by";
inline constexpr std::string_view kManagedByValue = "deepseek-operator";
// The model that a child belongs to.
inline constexpr std::string_view kModelLabel = "deepseek-operator.io/model";
// The revision that a pod was made from; also the name of its ControllerRevision's last part.
inline constexpr std::string_view kRevisionLabel = "deepseek-operator.io/revision";
// On a ControllerRevision that has been rolled out whole.
inline constexpr std::string_view kServedAnnotation = "deepseek-operator.io/served";
// On pods of a group that shall be moved: it goes when another one serves in its place. Any value.
inline constexpr std::string_view kDrainAnnotation = "deepseek-operator.io/drain";
// On a DeepSeekModel: the revision that it names is not run, though the spec asks for it. The
// operator goes back to the one before. "<revision>", or "<revision>@<time>" to ask again.
inline constexpr std::string_view kRollbackAnnotation = "deepseek-operator.io/rollback-from";
// Number of the group among those of its revision.
inline constexpr std::string_view kGroupLabel = "deepseek-operator.io/group";
// Number of the pod in its group; 0 is the leader.
inline constexpr std::string_view kPodIndexLabel = "deepseek-operator.io/pod-index";
// leader or worker.
inline constexpr std::string_view kRoleLabel = "deepseek-operator.io/role";
inline constexpr std::string_view kRoleLeader = "leader";
inline constexpr std::string_view kRoleWorker = "worker";

// The tenant that a namespace belongs to, and that what is made in it for the tenant belongs to.
inline constexpr std::string_view kTenantLabel = "deepseek-operator.io/tenant";
// What Kubernetes' own admission holds the pods of a namespace to.
inline constexpr std::string_view kPodSecurityLabel = "pod-security.kubernetes.io/enforce";
// The name that everything made for a tenant in its namespaces has, or begins with.
inline constexpr std::string_view kTenantObject = "deepseek-tenant";
// The Secret with the API keys of its namespace's models: entry name -> key. The operator may list
// and watch Secrets of this one name, and no others.
inline constexpr std::string_view kApiKeysSecret = "deepseek-api-keys";

inline constexpr int kHttpPort = 8000;
inline constexpr int kInternalPort = 8001;
inline constexpr int kControlPort = 8002;
inline constexpr int kGrpcPort = 50051;  // of leaders and of the Service, when the model wants it
inline constexpr int kServicePort = 80;

// Where the per-model token of the internal port is in a worker, and its key in the Secret.
inline constexpr std::string_view kTokenFolder = "/etc/dsm/internal";
inline constexpr std::string_view kTokenKey = "token";

// What the operator serves to autoscalers and as series, for each model.
inline constexpr std::string_view kQueueDepthMetric = "dsm_queue_depth";
inline constexpr std::string_view kQueueAgeMetric = "dsm_queue_age_seconds";
inline constexpr std::string_view kRunningMetric = "dsm_requests_running";
inline constexpr std::string_view kCacheUsageMetric = "dsm_kv_cache_usage_ratio";
inline constexpr std::string_view kMetricModelLabel = "model";

std::string autoscaler(std::string_view model);       // <model>
std::string serving_service(std::string_view model);  // <model>
std::string ranks_service(std::string_view model);    // <model>-ranks
std::string token_secret(std::string_view model);     // <model>-internal
std::string revision_object(std::string_view model,
                            std::string_view revision);  // <model>-<revision>
std::string group_name(std::string_view model, std::string_view revision, int group);
std::string pod_name(std::string_view model, std::string_view revision, int group, int pod);
std::string group_of_pod(std::string_view pod);              // of a name as above
std::string tenant_priority_class(std::string_view tenant);  // deepseek-tenant-<tenant>

}  // namespace dsm::api
