#include "operator/api/names.h"

namespace dsm::api {

std::string autoscaler(std::string_view model) {
  return std::string(model);
}

std::string serving_service(std::string_view model) {
  return std::string(model);
}

std::string ranks_service(std::string_view model) {
  return std::string(model) + "-ranks";
}

std::string token_secret(std::string_view model) {
  return std::string(model) + "-internal";
}

std::string revision_object(std::string_view model, std::string_view revision) {
  return std::string(model) + "-" + std::string(revision);
}

std::string group_name(std::string_view model, std::string_view revision, int group) {
  return revision_object(model, revision) + "-" + std::to_string(group);
}

std::string pod_name(std::string_view model, std::string_view revision, int group, int pod) {
  return group_name(model, revision, group) + "-" + std::to_string(pod);
}

std::string group_of_pod(std::string_view pod) {
  return std::string(pod.substr(0, pod.rfind('-')));
}

std::string tenant_priority_class(std::string_view tenant) {
  return std::string(kTenantObject) + "-" + std::string(tenant);
}

}  // namespace dsm::api
