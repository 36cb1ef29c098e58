#include "ctl/cluster.h"

#include <algorithm>

#include "ctl/objects.h"
#include "operator/api/names.h"

namespace dsm::ctl {
namespace {

using nlohmann::json;

std::string selector_of(const std::string& model) {
  if (model.empty()) {
    return std::string(api::kManagedByLabel) + "=" + std::string(api::kManagedByValue);
  }
  return std::string(api::kModelLabel) + "=" + model;
}

// The time by which `kubectl get events` sorts.
std::string time_of(const json& event) {
  for (const char* field : {"/series/lastObservedTime", "/lastTimestamp", "/eventTime",
                            "/metadata/creationTimestamp"}) {
    if (std::string time = text_at(event, field); !time.empty()) return time;
  }
  return "";
}

std::string why(const kube::ApiError& error) {
  if (error.code == 0) return "is the cluster up, and is it the right --context?";
  if (error.kind == ErrorKind::kDenied) {
    return error.code == 401 ? "the credentials of this --context are not accepted"
                             : "this user may not do that; ask for the permission";
  }
  return unknown_kind(error) ? "is the operator's chart installed?" : "";
}

}  // namespace

bool unknown_kind(const kube::ApiError& error) {
  // An unknown group is answered by the HTTP server, an unknown kind of a known group by a Status.
  return error.code == 404 &&
         (error.reason.empty() ||
          error.message.find("could not find the requested resource") != std::string::npos);
}

Error explained(const kube::ApiError& error) {
  Error out = error;
  if (const std::string remedy = why(error); !remedy.empty()) out.message += "; " + remedy;
  return out;
}

Result<json> Cluster::model(const std::string& name) {
  auto object = client_.get(kube::kDeepSeekModels, ns_, name);
  if (object) return std::move(*object);
  Error error = explained(object.error());
  if (object.error().code == 404 && !unknown_kind(object.error())) {
    error.message = "there is no DeepSeekModel " + name + " in namespace " + ns_ +
                    "; dsmctl status -A shows all";
  }
  return std::unexpected(std::move(error));
}

Result<std::vector<json>> Cluster::list(const kube::Resource& resource, const std::string& selector,
                                        bool everywhere) {
  kube::ListOptions options;
  options.label_selector = selector;
  auto all = client_.list(resource, everywhere ? "" : ns_, std::move(options));
  if (!all) return std::unexpected(explained(all.error()));
  return std::move(all->items);
}

Result<std::vector<json>> Cluster::models(bool everywhere) {
  return list(kube::kDeepSeekModels, "", everywhere);
}

Result<std::vector<json>> Cluster::pods(const std::string& model, bool everywhere) {
  return list(kube::kPods, selector_of(model), everywhere);
}

Result<std::vector<json>> Cluster::revisions(const std::string& model) {
  return list(kube::kControllerRevisions, selector_of(model), false);
}

Result<json> Cluster::find(const kube::Resource& resource, const std::string& name) {
  auto object = client_.get(resource, ns_, name);
  if (object) return std::move(*object);
  if (object.error().kind == ErrorKind::kNotFound) return json();
  return std::unexpected(explained(object.error()));
}

Result<std::vector<json>> Cluster::services(const std::string& model) {
  std::vector<json> out;
  for (const std::string& name : {api::serving_service(model), api::ranks_service(model)}) {
    Result<json> service = find(kube::kServices, name);
    if (!service) return std::unexpected(service.error());
    if (!service->is_null()) out.push_back(std::move(*service));
  }
  return out;
}

Result<json> Cluster::token_secret(const std::string& model) {
  const std::string name = api::token_secret(model);
  const auto answer = client_.send(kube::get_metadata_request(kube::kSecrets, ns_, name),
                                   "get the metadata of secrets " + ns_ + "/" + name);
  if (!answer && answer.error().kind == ErrorKind::kNotFound) return json();
  if (!answer) return std::unexpected(explained(answer.error()));
  const json object = json::parse(answer->body, nullptr, /*allow_exceptions=*/false);
  return json{{"apiVersion", "v1"}, {"kind", "Secret"}, {"metadata", part(object, "/metadata")}};
}

Result<std::vector<json>> Cluster::events(const std::string& model) {
  auto all = list(kube::kCoreEvents, "", false);
  if (!all) return all;
  std::erase_if(*all, [&](const json& event) {
    const std::string about = text_at(event, "/involvedObject/name");
    return about != model && !about.starts_with(model + "-");
  });
  std::ranges::sort(*all, {}, time_of);
  return all;
}

Result<std::vector<json>> Cluster::of_model(const kube::Resource& resource,
                                            const std::string& model) {
  return list(resource, selector_of(model), false);
}

Result<json> Cluster::autoscaler(const std::string& model) {
  return find(kube::kAutoscalers, api::autoscaler(model));
}

Result<std::vector<json>> Cluster::tenants() {
  auto all = client_.list(kube::kDeepSeekTenants, "");
  if (all) return std::move(all->items);
  if (all.error().code == 404) return std::vector<json>();
  return std::unexpected(explained(all.error()));
}

Result<std::optional<std::vector<std::string>>> Cluster::resources_of(
    const std::string& group_version) {
  const std::string path = "/apis/" + group_version;
  kube::HttpRequest request;
  request.target = path;
  request.headers = {{"Accept", "application/json"}};
  const auto answer = client_.send(request, "get " + path);
  if (!answer && answer.error().code == 404) return std::nullopt;
  if (!answer) return std::unexpected(explained(answer.error()));
  const json list = json::parse(answer->body, nullptr, /*allow_exceptions=*/false);
  std::vector<std::string> names;
  for (const json& one : part(list, "/resources")) names.push_back(text_at(one, "/name"));
  return names;
}

Result<std::vector<json>> Cluster::pods_on(const std::string& node) {
  kube::ListOptions options;
  options.label_selector = selector_of("");
  options.field_selector = "spec.nodeName=" + node;
  auto all = client_.list(kube::kPods, "", std::move(options));
  if (!all) return std::unexpected(explained(all.error()));
  return std::move(all->items);
}

Result<json> Cluster::cordon(const std::string& node, bool cordoned) {
  const json patch = {{"spec", {{"unschedulable", cordoned ? json(true) : json()}}}};
  auto object = client_.merge_patch(kube::kNodes, "", node, patch);
  if (object) return std::move(*object);
  Error error = explained(object.error());
  if (object.error().code == 404) {
    error.message = "there is no node " + node + "; kubectl get nodes shows all";
  }
  return std::unexpected(std::move(error));
}

Result<json> Cluster::patch_pod(const std::string& name, const json& patch) {
  auto object = client_.merge_patch(kube::kPods, ns_, name, patch);
  if (!object) return std::unexpected(explained(object.error()));
  return std::move(*object);
}

Result<json> Cluster::patch_model(const std::string& name, const json& patch) {
  auto object = client_.merge_patch(kube::kDeepSeekModels, ns_, name, patch);
  if (!object) return std::unexpected(explained(object.error()));
  return std::move(*object);
}

Result<json> Cluster::get_path(const std::string& path) {
  kube::HttpRequest request;
  request.target = path;
  request.headers = {{"Accept", "application/json"}};
  const auto answer = client_.send(request, "get " + path);
  if (!answer) return std::unexpected(explained(answer.error()));
  return json::parse(answer->body, nullptr, /*allow_exceptions=*/false);
}

Result<json> Cluster::version() {
  return get_path("/version");
}

Result<std::vector<std::string>> Cluster::api_versions() {
  const Result<json> group = get_path("/apis/" + std::string(api::kGroup));
  if (!group) return std::unexpected(group.error());
  std::vector<std::string> versions;
  const json& served = part(*group, "/versions");
  for (const json& one : served.is_array() ? served : json::array()) {
    versions.push_back(text_at(one, "/version"));
  }
  return versions;
}

}  // namespace dsm::ctl
