#include "operator/runtime/store.h"

#include "operator/api/names.h"

namespace dsm::runtime {
namespace {

std::string text(const Json& object, std::string_view key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

ObjectId id_of(const Json& object) {
  const Json metadata = object.value("metadata", Json::object());
  ObjectId id;
  id.key = text(metadata, "namespace") + "/" + text(metadata, "name");
  id.uid = text(metadata, "uid");
  id.version = std::strtoull(text(metadata, "resourceVersion").c_str(), nullptr, 10);
  return id;
}

Json without_version(Json object) {
  const auto metadata = object.find("metadata");
  if (metadata != object.end() && metadata->is_object()) metadata->erase("resourceVersion");
  return object;
}

}  // namespace

ObjectId id_of_model(const Json& model) {
  ObjectId id = id_of(model);
  id.model = id.key;
  return id;
}

ObjectId id_of_child(const Json& child) {
  ObjectId id = id_of(child);
  const Json metadata = child.value("metadata", Json::object());
  const Json labels = metadata.value("labels", Json::object());
  const std::string model = labels.is_object() ? text(labels, api::kModelLabel) : "";
  if (!model.empty()) id.model = text(metadata, "namespace") + "/" + model;
  return id;
}

ObjectId id_of_node(const Json& node) {
  ObjectId id = id_of(node);
  id.key = text(node.value("metadata", Json::object()), "name");
  id.model = id.key;
  return id;
}

KeptPacked::Kept KeptPacked::keep(const Json& value) {
  Kept kept = Json::to_msgpack(value);
  kept.shrink_to_fit();
  return kept;
}

std::shared_ptr<const Json> KeptPacked::open(const Kept& kept) {
  return std::make_shared<const Json>(Json::from_msgpack(kept));
}

Json trimmed(Json object) {
  const auto metadata = object.find("metadata");
  if (metadata != object.end() && metadata->is_object()) {
    metadata->erase("managedFields");
    const auto notes = metadata->find("annotations");
    if (notes != metadata->end() && notes->is_object()) {
      notes->erase("kubectl.kubernetes.io/last-applied-configuration");
    }
  }
  return object;
}

Json trimmed_budget(Json object) {
  object.erase("status");
  return trimmed(std::move(object));
}

Json trimmed_autoscaler(Json object) {
  const auto status = object.find("status");
  if (status != object.end() && status->is_object()) {
    *status = {{"conditions", status->value("conditions", Json::array())}};
  }
  return trimmed(std::move(object));
}

bool same_object(const Json& a, const Json& b) {
  return a == b || without_version(a) == without_version(b);
}

bool same_but_for_status(const Json& a, const Json& b) {
  Json left = without_version(a);
  Json right = without_version(b);
  for (Json* each : {&left, &right}) each->erase("status");
  return left == right;
}

}  // namespace dsm::runtime
