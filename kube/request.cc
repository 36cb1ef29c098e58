#include "kube/request.h"

#include <nlohmann/json.hpp>

namespace dsm::kube {
namespace {

constexpr const char* kJsonType = "application/json";

class Query {
 public:
  Query& add(std::string_view key, std::string_view value) {
    if (value.empty()) return *this;
    text_ += text_.empty() ? '?' : '&';
    text_ += key;
    text_ += '=';
    text_ += percent_encode(value);
    return *this;
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

std::string version_path(const Resource& resource) {
  return (resource.group.empty() ? "/api" : "/apis/" + std::string(resource.group)) + "/" +
         std::string(resource.version);
}

std::string collection_path(const Resource& resource, const std::string& ns) {
  std::string path = version_path(resource);
  if (resource.namespaced && !ns.empty()) path += "/namespaces/" + percent_encode(ns);
  path += "/" + std::string(resource.plural);
  return path;
}

std::string object_path(const Resource& resource, const std::string& ns, const std::string& name,
                        const std::string& subresource = "") {
  std::string path = collection_path(resource, ns) + "/" + percent_encode(name);
  if (!subresource.empty()) path += "/" + subresource;
  return path;
}

HttpRequest reading(std::string target) {
  HttpRequest request;
  request.target = std::move(target);
  request.headers = {{"Accept", kJsonType}};
  return request;
}

HttpRequest writing(std::string method, std::string target, const char* content_type,
                    std::string body, bool idempotent) {
  HttpRequest request;
  request.method = std::move(method);
  request.target = std::move(target);
  request.headers = {{"Accept", kJsonType}, {"Content-Type", content_type}};
  request.body = std::move(body);
  request.idempotent = idempotent;
  return request;
}

}  // namespace

std::string percent_encode(std::string_view text) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
                       (byte >= '0' && byte <= '9') || byte == '-' || byte == '.' || byte == '_' ||
                       byte == '~';
    if (plain) {
      out += c;
    } else {
      out += '%';
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    }
  }
  return out;
}

HttpRequest discovery_request(const Resource& resource) {
  return reading(version_path(resource));
}

HttpRequest get_request(const Resource& resource, const std::string& ns, const std::string& name) {
  return reading(object_path(resource, ns, name));
}

HttpRequest get_metadata_request(const Resource& resource, const std::string& ns,
                                 const std::string& name) {
  HttpRequest request = get_request(resource, ns, name);
  request.headers = {{"Accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"}};
  return request;
}

HttpRequest log_request(const std::string& ns, const std::string& pod, const LogOptions& options) {
  Query query;
  if (options.follow) query.add("follow", "true");
  if (options.previous) query.add("previous", "true");
  if (options.tail_lines >= 0) query.add("tailLines", std::to_string(options.tail_lines));
  if (options.limit_bytes > 0) query.add("limitBytes", std::to_string(options.limit_bytes));
  HttpRequest request = reading(object_path(kPods, ns, pod, "log") + query.text());
  // The log is text, but a refusal is a Status object.
  request.headers = {{"Accept", "*/*"}};
  return request;
}

HttpRequest list_request(const Resource& resource, const std::string& ns,
                         const ListOptions& options) {
  Query query;
  query.add("labelSelector", options.label_selector).add("fieldSelector", options.field_selector);
  if (options.limit > 0) query.add("limit", std::to_string(options.limit));
  // A continue token names its own resource version: the server refuses both together.
  if (options.continue_token.empty()) {
    query.add("resourceVersion", options.resource_version);
  } else {
    query.add("continue", options.continue_token);
  }
  return reading(collection_path(resource, ns) + query.text());
}

HttpRequest watch_request(const Resource& resource, const std::string& ns,
                          const WatchOptions& options) {
  Query query;
  query.add("watch", "true")
      .add("allowWatchBookmarks", "true")
      .add("labelSelector", options.label_selector)
      .add("fieldSelector", options.field_selector)
      .add("resourceVersion", options.resource_version)
      .add("timeoutSeconds", std::to_string(options.timeout_s));
  return reading(collection_path(resource, ns) + query.text());
}

HttpRequest create_request(const Resource& resource, const std::string& ns, std::string body,
                           const std::string& field_manager) {
  return writing("POST",
                 collection_path(resource, ns) + Query().add("fieldManager", field_manager).text(),
                 kJsonType, std::move(body), /*idempotent=*/false);
}

HttpRequest replace_request(const Resource& resource, const std::string& ns,
                            const std::string& name, std::string body,
                            const std::string& field_manager) {
  return writing(
      "PUT", object_path(resource, ns, name) + Query().add("fieldManager", field_manager).text(),
      kJsonType, std::move(body), /*idempotent=*/false);
}

HttpRequest apply_request(const Resource& resource, const std::string& ns, const std::string& name,
                          std::string body, const std::string& field_manager, bool force,
                          const std::string& subresource) {
  Query query;
  query.add("fieldManager", field_manager).add("force", force ? "true" : "false");
  // The body is JSON, which is YAML: every server that can apply reads this media type.
  return writing("PATCH", object_path(resource, ns, name, subresource) + query.text(),
                 "application/apply-patch+yaml", std::move(body), /*idempotent=*/true);
}

HttpRequest merge_patch_request(const Resource& resource, const std::string& ns,
                                const std::string& name, std::string body,
                                const std::string& field_manager, const std::string& subresource) {
  return writing("PATCH",
                 object_path(resource, ns, name, subresource) +
                     Query().add("fieldManager", field_manager).text(),
                 "application/merge-patch+json", std::move(body), /*idempotent=*/true);
}

HttpRequest strategic_patch_request(const Resource& resource, const std::string& ns,
                                    const std::string& name, std::string body,
                                    const std::string& field_manager) {
  return writing(
      "PATCH", object_path(resource, ns, name) + Query().add("fieldManager", field_manager).text(),
      "application/strategic-merge-patch+json", std::move(body), /*idempotent=*/true);
}

HttpRequest delete_request(const Resource& resource, const std::string& ns, const std::string& name,
                           const DeleteOptions& options) {
  nlohmann::json body = {{"apiVersion", "v1"}, {"kind", "DeleteOptions"}};
  if (!options.uid.empty()) body["preconditions"]["uid"] = options.uid;
  if (!options.resource_version.empty()) {
    body["preconditions"]["resourceVersion"] = options.resource_version;
  }
  if (options.grace_period_s >= 0) body["gracePeriodSeconds"] = options.grace_period_s;
  if (!options.propagation.empty()) body["propagationPolicy"] = options.propagation;
  // Without the uid a second delete could meet a new object of the same name.
  return writing("DELETE", object_path(resource, ns, name), kJsonType, body.dump(),
                 /*idempotent=*/!options.uid.empty());
}

}  // namespace dsm::kube
