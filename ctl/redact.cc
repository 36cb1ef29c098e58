#include "ctl/redact.h"

#include "ctl/objects.h"

namespace dsm::ctl {
namespace {

using nlohmann::json;

constexpr const char* kNote = "(redacted)";

// Every list "env" of {"name", "value"}, wherever it is: in a pod, a model or a revision.
void redact_environment(json& value) {
  if (value.is_object() && value.contains("env") && value["env"].is_array()) {
    for (json& variable : value["env"]) {
      if (variable.is_object() && variable.contains("value")) variable["value"] = kNote;
    }
  }
  if (!value.is_structured()) return;
  for (json& inside : value) redact_environment(inside);
}

}  // namespace

json redacted(json object) {
  if (!object.is_object()) return object;
  if (object.contains("metadata") && object["metadata"].is_object()) {
    json& metadata = object["metadata"];
    metadata.erase("managedFields");
    if (metadata.contains("annotations") && metadata["annotations"].is_object()) {
      metadata["annotations"].erase("kubectl.kubernetes.io/last-applied-configuration");
    }
  }
  if (text_at(object, "/kind") == "Secret") {
    for (const char* field : {"data", "stringData"}) {
      if (!object.contains(field) || !object[field].is_object()) continue;
      for (json& value : object[field]) value = kNote;
    }
  }
  redact_environment(object);
  return object;
}

}  // namespace dsm::ctl
