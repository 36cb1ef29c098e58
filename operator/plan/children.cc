#include "operator/plan/children.h"

#include <set>

#include "operator/api/names.h"

namespace dsm::plan {
namespace {

using nlohmann::json;

// {key: value}; std::string keys, because the label constants are views.
json labels(std::initializer_list<std::pair<std::string_view, std::string_view>> list) {
  json out = json::object();
  for (const auto& [key, value] : list) out[std::string(key)] = value;
  return out;
}

json port(std::string_view name, int number, json target) {
  return {{"name", name}, {"port", number}, {"protocol", "TCP"}, {"targetPort", std::move(target)}};
}

}  // namespace

json child_metadata(const Owner& owner, std::string_view name) {
  return {{"name", name},
          {"namespace", owner.ns},
          {"labels", labels({{api::kNameLabel, api::kNameValue},
                             {api::kManagedByLabel, api::kManagedByValue},
                             {api::kModelLabel, owner.name}})},
          {"ownerReferences", json::array({{{"apiVersion", api::kApiVersion},
                                            {"kind", api::kKind},
                                            {"name", owner.name},
                                            {"uid", owner.uid},
                                            {"controller", true},
                                            {"blockOwnerDeletion", true}}})}};
}

json serving_service_json(const Owner& owner, bool grpc) {
  json ports = json::array({port("http", api::kServicePort, "http")});
  if (grpc) ports.push_back(port("grpc", api::kGrpcPort, "grpc"));
  return {
      {"apiVersion", "v1"},
      {"kind", "Service"},
      {"metadata", child_metadata(owner, api::serving_service(owner.name))},
      {"spec",
       {{"selector", labels({{api::kModelLabel, owner.name}, {api::kRoleLabel, api::kRoleLeader}})},
        {"ports", std::move(ports)}}}};
}

json ranks_service_json(const Owner& owner) {
  return {{"apiVersion", "v1"},
          {"kind", "Service"},
          {"metadata", child_metadata(owner, api::ranks_service(owner.name))},
          {"spec",
           {{"clusterIP", "None"},
            {"publishNotReadyAddresses", true},
            {"selector", labels({{api::kModelLabel, owner.name}})},
            {"ports", json::array({port("control", api::kControlPort, "control")})}}}};
}

json token_secret_json(const Owner& owner, const std::string& token) {
  return {{"apiVersion", "v1"},
          {"kind", "Secret"},
          {"metadata", child_metadata(owner, api::token_secret(owner.name))},
          {"type", "Opaque"},
          {"stringData", {{api::kTokenKey, token}}}};
}

json revision_json(const Owner& owner, const Revision& revision) {
  json metadata = child_metadata(owner, api::revision_object(owner.name, revision.name));
  metadata["labels"][std::string(api::kRevisionLabel)] = revision.name;
  return {{"apiVersion", "apps/v1"},
          {"kind", "ControllerRevision"},
          {"metadata", std::move(metadata)},
          {"revision", revision.number},
          {"data", {{"spec", api::pod_shape(revision.spec)}, {"image", revision.image}}}};
}

std::optional<Revision> parse_revision(const json& object) {
  const json name =
      object.value(json::json_pointer("/metadata/labels/deepseek-operator.io~1revision"), json());
  const json spec = object.value(json::json_pointer("/data/spec"), json());
  const json image = object.value(json::json_pointer("/data/image"), json());
  if (!name.is_string() || !image.is_string()) return std::nullopt;
  auto parsed = api::parse_pod_shape(spec);
  if (!parsed) return std::nullopt;
  const auto number = object.find("revision");
  const json notes = object.value(json::json_pointer("/metadata/annotations"), json());
  const json created = object.value(json::json_pointer("/metadata/creationTimestamp"), json());
  return Revision{name,
                  *std::move(parsed),
                  image,
                  number != object.end() && number->is_number_integer() ? number->get<long>() : 0,
                  notes.is_object() && notes.contains(api::kServedAnnotation),
                  created.is_string() ? from_rfc3339(created.get<std::string>()) : WallTime()};
}

std::string controller_uid(const json& object) {
  const json owners = object.value(json::json_pointer("/metadata/ownerReferences"), json());
  if (!owners.is_array()) return {};
  for (const auto& owner : owners) {
    if (owner.value("controller", false)) return owner.value("uid", "");
  }
  return {};
}

bool says_the_same(const json& wanted, const json& actual) {
  if (wanted.is_object()) {
    if (!actual.is_object()) return false;
    for (const auto& [key, value] : wanted.items()) {
      const auto it = actual.find(key);
      if (it == actual.end() || !says_the_same(value, *it)) return false;
    }
    return true;
  }
  if (wanted.is_array()) {
    if (!actual.is_array() || wanted.size() != actual.size()) return false;
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      if (!says_the_same(wanted[i], actual[i])) return false;
    }
    return true;
  }
  return wanted == actual;
}

bool same_port_keys(const json& wanted, const json& actual) {
  const auto keys = [](const json& service) {
    std::set<std::pair<json, json>> out;
    for (const json& port : service.value(json::json_pointer("/spec/ports"), json::array())) {
      out.emplace(port.value("port", json()), port.value("protocol", json("TCP")));
    }
    return out;
  };
  return keys(wanted) == keys(actual);
}

}  // namespace dsm::plan
