#include "operator/faults/api_server.h"

#include <algorithm>
#include <array>
#include <ranges>
#include <set>
#include <vector>

#include "kube/config.h"
#include "kube/parse.h"
#include "kube/testing/scripted_transport.h"
#include "operator/faults/admission.h"
#include "operator/plan/simulate_json.h"

namespace dsm::faults {
namespace {

using kube::HttpRequest;
using kube::HttpResponse;
using kube::member;
using kube::Resource;
using kube::text_of;
using kube::testing::json_answer;
using kube::testing::status_answer;

constexpr std::array<const Resource*, 19> kServed = {&kube::kPods,
                                                     &kube::kNodes,
                                                     &kube::kServices,
                                                     &kube::kSecrets,
                                                     &kube::kControllerRevisions,
                                                     &kube::kPodDisruptionBudgets,
                                                     &kube::kAutoscalers,
                                                     &kube::kLeases,
                                                     &kube::kEvents,
                                                     &kube::kDeepSeekModels,
                                                     &kube::kDeepSeekTenants,
                                                     &kube::kNamespaces,
                                                     &kube::kNetworkPolicies,
                                                     &kube::kLimitRanges,
                                                     &kube::kResourceQuotas,
                                                     &kube::kRoleBindings,
                                                     &kube::kPriorityClasses,
                                                     &kube::kPodGroups,
                                                     &kube::kWorkloads};
constexpr std::array<const Resource*, 2> kOptional = {&kube::kPodGroups, &kube::kWorkloads};
// What a model's, or a tenant's, garbage is looked for in.
constexpr std::array<const Resource*, 12> kOwned = {&kube::kPods,
                                                    &kube::kServices,
                                                    &kube::kSecrets,
                                                    &kube::kControllerRevisions,
                                                    &kube::kPodDisruptionBudgets,
                                                    &kube::kAutoscalers,
                                                    &kube::kNetworkPolicies,
                                                    &kube::kLimitRanges,
                                                    &kube::kResourceQuotas,
                                                    &kube::kRoleBindings,
                                                    &kube::kPriorityClasses,
                                                    &kube::kPodGroups};
constexpr const char* kForeground = "foregroundDeletion";

std::string decoded(const std::string& text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size()) {
      out += static_cast<char>(std::stoi(text.substr(i + 1, 2), nullptr, 16));
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts;
  std::size_t begin = 0;
  while (begin <= text.size()) {
    const std::size_t end = std::min(text.find(at, begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

const std::string* header(const HttpRequest& request, const char* name) {
  for (const auto& [key, value] : request.headers) {
    if (key == name) return &value;
  }
  return nullptr;
}

HttpResponse not_found() {
  return status_answer(404, "NotFound", "not found");
}

HttpResponse conflict(const std::string& message) {
  return status_answer(409, "Conflict", message);
}

bool is_optional(const Resource& resource) {
  return std::ranges::any_of(kOptional, [&](const Resource* each) { return *each == resource; });
}

bool counts_generations(const Resource& resource) {
  return resource == kube::kDeepSeekModels || resource == kube::kDeepSeekTenants;
}

std::string manager_of(const std::map<std::string, std::string>& query) {
  const auto found = query.find("fieldManager");
  return found == query.end() ? "user" : found->second;
}

}  // namespace

ApiServer::ApiServer(Clock& clock) : clock_(clock), kubelets_(objects_, clock.wall_now()) {}

// /api/v1 or /apis/GROUP/VERSION, then [/namespaces/NS]/PLURAL[/NAME[/SUBRESOURCE]]
ApiServer::Place ApiServer::place_of(const std::string& target) {
  Place place;
  const auto question = target.find('?');
  if (question != std::string::npos) {
    for (const std::string& pair : split(target.substr(question + 1), '&')) {
      const auto equals = pair.find('=');
      place.query[pair.substr(0, equals)] = decoded(pair.substr(equals + 1));
    }
  }
  std::vector<std::string> parts = split(target.substr(1, question - 1), '/');
  std::size_t at = parts[0] == "api" ? 2 : 3;
  const std::string group = parts[0] == "api" ? "" : parts[1];
  // NS may be what it is about.
  if (parts.size() > at + 2 && parts[at] == "namespaces") {
    place.ns = parts[at + 1];
    at += 2;
  }
  if (parts.size() <= at) return place;
  for (const Resource* resource : kServed) {
    if (resource->plural == parts[at] && resource->group == group) place.resource = resource;
  }
  if (parts.size() > at + 1) place.name = decoded(parts[at + 1]);
  if (parts.size() > at + 2) place.subresource = parts[at + 2];
  return place;
}

HttpResponse ApiServer::answer(const HttpRequest& request) {
  const Place place = place_of(request.target);
  if (place.resource == nullptr) return discover(request.target);
  if (is_optional(*place.resource) && !defined_.contains(std::string(place.resource->plural))) {
    return not_found();
  }
  const Json body = request.body.empty() ? Json::object() : Json::parse(request.body);
  // Nobody reads Events here.
  if (*place.resource == kube::kEvents) return json_answer(201, body);
  if (request.method == "GET") {
    if (place.name.empty()) return list(place);
    const Json* const object = objects_.find(*place.resource, place.key());
    return object == nullptr ? not_found() : json_answer(200, *object);
  }
  if (request.method == "POST") return create(place, body);
  if (request.method == "PUT") return replace(place, body);
  if (request.method == "DELETE") return remove(place, body);
  const std::string* const type = header(request, "Content-Type");
  if (*type == "application/apply-patch+yaml") return apply(place, body);
  return patch(place, body, *type == "application/strategic-merge-patch+json");
}

// The kinds of a group and version of which something is defined.
HttpResponse ApiServer::discover(const std::string& target) const {
  Json kinds = Json::array();
  for (const Resource* const resource : kOptional) {
    if (!defined_.contains(std::string(resource->plural))) continue;
    if (target == "/apis/" + resource->api_version()) kinds.push_back({{"name", resource->plural}});
  }
  if (kinds.empty()) return not_found();
  return json_answer(200, {{"kind", "APIResourceList"}, {"resources", std::move(kinds)}});
}

void ApiServer::define(const Resource& resource, bool defined) {
  if (defined) {
    defined_.insert(std::string(resource.plural));
    return;
  }
  defined_.erase(std::string(resource.plural));
  for (const auto& [key, object] : std::map(objects_.all(resource))) objects_.erase(resource, key);
}

std::string ApiServer::what(const HttpRequest& request) {
  const Place place = place_of(request.target);
  const std::string plural(place.resource == nullptr ? "" : place.resource->plural);
  return place.subresource.empty() ? plural : plural + "/" + place.subresource;
}

HttpResponse ApiServer::list(const Place& place) const {
  const auto selector = place.query.find("labelSelector");
  const auto field = place.query.find("fieldSelector");
  Json items = Json::array();
  for (const auto& [key, object] : objects_.all(*place.resource)) {
    if (!place.ns.empty() && text_of(member(object, "metadata"), "namespace") != place.ns) continue;
    if (selector != place.query.end() && !selected(object, selector->second)) continue;
    if (field != place.query.end() && !field_selected(object, field->second)) continue;
    items.push_back(object);
  }
  return json_answer(200, {{"apiVersion", place.resource->api_version()},
                           {"kind", std::string(place.resource->kind) + "List"},
                           {"metadata", {{"resourceVersion", std::to_string(objects_.version())}}},
                           {"items", std::move(items)}});
}

HttpResponse ApiServer::create(const Place& place, const Json& object) {
  if (object["metadata"].contains("resourceVersion")) {
    return status_answer(400, "BadRequest", "resourceVersion should not be set");
  }
  HttpResponse answer = make(place, object);
  if (!answer.ok()) return answer;
  const Json made = Json::parse(answer.body);
  fields_of(made).update(Json::object(), made, manager_of(place.query));
  return answer;
}

HttpResponse ApiServer::make(const Place& place, Json object) {
  const Resource& resource = *place.resource;
  if (objects_.find(resource, key_of(object)) != nullptr) {
    return status_answer(409, "AlreadyExists", "already exists");
  }
  if (resource == kube::kPods && std::ssize(objects_.all(resource)) >= quota) {
    return status_answer(403, "Forbidden", "exceeded quota: pods");
  }
  if (resource == kube::kPods) {
    take_default_requests(objects_, object);
    const std::string why = over_quota(objects_, object, clock_.wall_now());
    if (!why.empty()) return status_answer(403, "Forbidden", why);
    const std::string fails = webhook ? webhook(object) : "";
    if (!fails.empty()) return status_answer(500, "InternalError", fails);
  }
  Json& metadata = object["metadata"];
  metadata["uid"] = "uid-" + std::to_string(++uids_);
  metadata["creationTimestamp"] = to_rfc3339(clock_.wall_now());
  if (counts_generations(resource)) metadata["generation"] = 1;
  if (resource == kube::kSecrets) {
    for (const auto& [name, text] : object["stringData"].items()) {
      object["data"][name] = kube::base64_encode(text.get<std::string>());
    }
    object.erase("stringData");
  }
  if (resource == kube::kPods) {
    object["status"] = {{"phase", "Pending"}, {"conditions", Json::array()}};
    if (object["spec"].contains("schedulingGates")) {
      plan::set_condition(object, "PodScheduled", false, "SchedulingGated",
                          "Scheduling is blocked due to non-empty scheduling gates",
                          clock_.wall_now());
    }
  }
  const Json& kept = objects_.put(resource, std::move(object));
  if (resource == kube::kPods) kubelets_.take(kept);
  return json_answer(201, kept);
}

ManagedFields& ApiServer::fields_of(const Json& object) {
  return fields_[text_of(object["metadata"], "uid")];
}

std::set<std::string> ApiServer::owners_of(const Json& object) const {
  const auto found = fields_.find(text_of(object["metadata"], "uid"));
  return found == fields_.end() ? std::set<std::string>() : found->second.owners();
}

// Takes what a write has made of an object.
HttpResponse ApiServer::put(const Place& place, Json object) {
  const Resource& resource = *place.resource;
  const Json& there = *objects_.find(resource, place.key());
  if (counts_generations(resource) && object["spec"] != there["spec"]) {
    object["metadata"]["generation"] = there["metadata"]["generation"].get<long>() + 1;
  }
  const Json& metadata = object["metadata"];
  if (metadata.contains("deletionTimestamp") && resource != kube::kPods &&
      metadata.value("finalizers", Json::array()).empty()) {
    objects_.erase(resource, place.key());
    return json_answer(200, object);
  }
  return json_answer(200, objects_.put(resource, std::move(object)));
}

HttpResponse ApiServer::replace(const Place& place, Json object) {
  const Json* const there = objects_.find(*place.resource, place.key());
  if (there == nullptr) return not_found();
  const Json& metadata = (*there)["metadata"];
  const std::string version = text_of(object["metadata"], "resourceVersion");
  if (!version.empty() && version != text_of(metadata, "resourceVersion")) {
    return conflict("the object has been modified");
  }
  for (const char* const kept : {"uid", "creationTimestamp"}) {
    object["metadata"][kept] = metadata[kept];
  }
  fields_of(*there).update(*there, object, manager_of(place.query));
  return put(place, std::move(object));
}

HttpResponse ApiServer::apply(const Place& place, const Json& wanted) {
  const Json& said = wanted["metadata"];
  const std::string uid = text_of(said, "uid");
  const std::string version = text_of(said, "resourceVersion");
  const std::string manager = manager_of(place.query);
  const Json* const there = objects_.find(*place.resource, place.key());
  if (there == nullptr) {
    if (!uid.empty()) return conflict("it is not there");
    HttpResponse answer = make(place, wanted);
    if (answer.ok()) fields_of(Json::parse(answer.body)).apply(Json::object(), wanted, manager);
    return answer;
  }
  const Json& metadata = (*there)["metadata"];
  if (!uid.empty() && uid != text_of(metadata, "uid")) return conflict("the uid is another one");
  if (!version.empty() && version != text_of(metadata, "resourceVersion")) {
    return conflict("the object has been modified");
  }
  if (place.subresource.empty())
    return put(place, fields_of(*there).apply(*there, wanted, manager));
  Json next = *there;
  next["status"] = wanted["status"];  // all of it is the operator's
  return put(place, std::move(next));
}

HttpResponse ApiServer::patch(const Place& place, const Json& patch, bool strategic) {
  const Json* const there = objects_.find(*place.resource, place.key());
  if (there == nullptr) return not_found();
  const std::string uid = text_of(member(patch, "metadata"), "uid");
  if (!uid.empty() && uid != text_of((*there)["metadata"], "uid")) {
    return status_answer(strategic ? 422 : 409, strategic ? "Invalid" : "Conflict",
                         "the uid cannot change");
  }
  if (strategic) return release(place, patch);
  Json next = *there;
  next.merge_patch(patch);
  fields_of(*there).update(*there, next, manager_of(place.query));
  return put(place, std::move(next));
}

HttpResponse ApiServer::remove(const Place& place, const Json& options) {
  const Resource& resource = *place.resource;
  const Json* const there = objects_.find(resource, place.key());
  if (there == nullptr) return not_found();
  const std::string uid = text_of(member(options, "preconditions"), "uid");
  if (!uid.empty() && uid != text_of((*there)["metadata"], "uid")) {
    return conflict("the uid is another one");
  }
  if (resource != kube::kPods) {
    objects_.erase(resource, place.key());
    return json_answer(200, {{"kind", "Status"}, {"status", "Success"}});
  }
  kubelets_.end(place.key());
  return last_of(place);
}

// The only strategic patch of the operator: it takes a finalizer off a pod.
HttpResponse ApiServer::release(const Place& place, const Json& patch) {
  for (const Json& finalizer : patch["metadata"]["$deleteFromPrimitiveList/finalizers"]) {
    Kubelets::Pod* const pod = kubelets_.pod(place.key());
    if (pod != nullptr) kubelets_.take_off(*pod, finalizer.get<std::string>());
  }
  return last_of(place);
}

HttpResponse ApiServer::last_of(const Place& place) const {
  const Json* const left = objects_.find(*place.resource, place.key());
  if (left != nullptr) return json_answer(200, *left);
  const auto& events = objects_.events(*place.resource);
  const auto last = std::ranges::find_if(
      events | std::views::reverse,
      [&](const Objects::Event& event) { return key_of(event.object) == place.key(); });
  return json_answer(200, last->object);
}

void ApiServer::make_model(const std::string& ns, const std::string& name, const Json& spec) {
  Place place;
  place.resource = &kube::kDeepSeekModels;
  create(place, Json{{"apiVersion", kube::kDeepSeekModels.api_version()},
                     {"kind", kube::kDeepSeekModels.kind},
                     {"metadata", {{"name", name}, {"namespace", ns}}},
                     {"spec", spec}});
}

void ApiServer::edit_model(const std::string& key, const Json& merge_patch) {
  Place place;
  place.resource = &kube::kDeepSeekModels;
  place.name = key;
  patch(place, {{"spec", merge_patch}}, /*strategic=*/false);
}

void ApiServer::delete_model(const std::string& key, bool foreground) {
  const Json* const there = objects_.find(kube::kDeepSeekModels, key);
  if (there == nullptr) return;
  if (!foreground) return objects_.erase(kube::kDeepSeekModels, key);
  Json going = *there;
  going["metadata"]["deletionTimestamp"] = to_rfc3339(clock_.wall_now());
  going["metadata"]["finalizers"] = Json::array({kForeground});
  objects_.put(kube::kDeepSeekModels, std::move(going));
}

void ApiServer::pass_second() {
  kubelets_.pass_second();
  collect();
}

// The garbage collector: what belongs to models or tenants that are not there, or wait for it to
// go, goes.
void ApiServer::collect() {
  std::set<std::string> living;
  std::map<std::string, std::string> done;  // keys of models that wait for nothing, by their uid
  for (const auto& [key, model] : objects_.all(kube::kDeepSeekModels)) {
    const std::string uid = model["metadata"]["uid"];
    if (model["metadata"].contains("deletionTimestamp")) {
      done[uid] = key;
    } else {
      living.insert(uid);
    }
  }
  for (const auto& [key, tenant] : objects_.all(kube::kDeepSeekTenants)) {
    living.insert(tenant["metadata"]["uid"].get<std::string>());
  }
  for (const Resource* const resource : kOwned) {
    std::vector<std::string> garbage;
    for (const auto& [key, object] : objects_.all(*resource)) {
      const Json owners = object["metadata"].value("ownerReferences", Json::array());
      const std::string uid = owners.empty() ? "" : owners[0]["uid"].get<std::string>();
      if (uid.empty() || living.contains(uid)) continue;
      done.erase(uid);
      garbage.push_back(key);
    }
    for (const std::string& key : garbage) {
      if (*resource == kube::kPods) {
        kubelets_.end(key);
      } else {
        objects_.erase(*resource, key);
      }
    }
  }
  for (const auto& [uid, key] : done) objects_.erase(kube::kDeepSeekModels, key);
}

}  // namespace dsm::faults
