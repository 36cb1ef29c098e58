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

Json trimmed(Json object) {
  if (const auto metadata = object.find("metadata"); metadata != object.end()) {
    metadata->erase("managedFields");
    if (const auto notes = metadata->find("annotations"); notes != metadata->end()) {
      notes->erase("kubectl.kubernetes.io/last-applied-configuration");
    }
  }
  return object;
}

bool same_object(const Json& a, const Json& b) {
  if (a == b) return true;
  Json left = a;
  Json right = b;
  left["metadata"].erase("resourceVersion");
  right["metadata"].erase("resourceVersion");
  return left == right;
}

}  // namespace dsm::runtime
