#include "operator/runtime/store.h"

#include "kube/parse.h"
#include "operator/api/names.h"

namespace dsm::runtime {
namespace {

using kube::member;
using kube::text_of;

ObjectId id_of(const Json& object) {
  const Json& metadata = member(object, "metadata");
  ObjectId id;
  id.key = text_of(metadata, "namespace") + "/" + text_of(metadata, "name");
  id.uid = text_of(metadata, "uid");
  id.version = std::strtoull(text_of(metadata, "resourceVersion").c_str(), nullptr, 10);
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
  const Json& metadata = member(child, "metadata");
  const std::string model = text_of(member(metadata, "labels"), api::kModelLabel);
  if (!model.empty()) id.model = text_of(metadata, "namespace") + "/" + model;
  return id;
}

ObjectId id_of_node(const Json& node) {
  ObjectId id = id_of(node);
  id.key = text_of(member(node, "metadata"), "name");
  id.model = id.key;
  return id;
}

KeptPacked::Kept KeptPacked::keep(const Json& value) {
  Kept kept = Json::to_msgpack(value);
  kept.shrink_to_fit();
  return kept;
}

std::unique_ptr<Json> KeptPacked::open(const Kept& kept) {
  return std::make_unique<Json>(Json::from_msgpack(kept));
}

Json trimmed(Json object) {
  const auto metadata = object.find("metadata");
  if (metadata != object.end() && metadata->is_object()) {
    const auto notes = metadata->find("annotations");
    if (notes != metadata->end() && notes->is_object()) {
      notes->erase("kubectl.kubernetes.io/last-applied-configuration");
    }
  }
  return object;
}

Json without_status(Json object) {
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

bool unseen(const Json& model) {
  const auto generation = [&](const char* part, const char* name) {
    return model.value(part, Json::object()).value(name, Json());
  };
  return generation("metadata", "generation") != generation("status", "observedGeneration");
}

bool same_but_for_status(const Json& a, const Json& b) {
  Json left = without_version(a);
  Json right = without_version(b);
  for (Json* each : {&left, &right}) each->erase("status");
  return left == right;
}

}  // namespace dsm::runtime
