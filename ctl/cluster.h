// What dsmctl reads of and writes to the cluster, in the words of its commands. The errors say what
// a person can do. Blocks the caller; thread-safe as kube::Client is.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "kube/client.h"

namespace dsm::ctl {

class Cluster {
 public:
  // `client` must outlive it. `ns` is the namespace that commands mean.
  Cluster(kube::Client& client, std::string ns) : client_(client), ns_(std::move(ns)) {}

  const std::string& ns() const { return ns_; }
  kube::Client& client() { return client_; }
  // The same cluster with another namespace in mind.
  Cluster in(std::string ns) const { return {client_, std::move(ns)}; }

  Result<nlohmann::json> model(const std::string& name);
  // Of all namespaces when `everywhere`.
  Result<std::vector<nlohmann::json>> models(bool everywhere);
  // The pods of one model; of all when `model` is empty.
  Result<std::vector<nlohmann::json>> pods(const std::string& model, bool everywhere = false);
  Result<std::vector<nlohmann::json>> revisions(const std::string& model);
  Result<std::vector<nlohmann::json>> services(const std::string& model);
  // The Secret with the model's token, without what is in it; null when it is not there.
  Result<nlohmann::json> token_secret(const std::string& model);
  // Those that regard the model or its children, by time.
  Result<std::vector<nlohmann::json>> events(const std::string& model);

  // Of another kind, by the label of its model.
  Result<std::vector<nlohmann::json>> of_model(const kube::Resource& resource,
                                               const std::string& model);
  // null when there is none.
  Result<nlohmann::json> autoscaler(const std::string& model);
  // All of the cluster; none where it does not know the kind.
  Result<std::vector<nlohmann::json>> tenants();
  // The names of the resources of a group and version that the API server serves, itself or through
  // another server; nullopt: nobody does.
  Result<std::optional<std::vector<std::string>>> resources_of(const std::string& group_version);

  // Ours on a node, of all namespaces.
  Result<std::vector<nlohmann::json>> pods_on(const std::string& node);
  // Keeps the scheduler from putting pods on the node, or lets it again.
  Result<nlohmann::json> cordon(const std::string& node, bool cordoned);
  Result<nlohmann::json> patch_pod(const std::string& name, const nlohmann::json& patch);
  // Merge-patches the model and answers with it.
  Result<nlohmann::json> patch_model(const std::string& name, const nlohmann::json& patch);

  // {"gitVersion": ...} of the API server.
  Result<nlohmann::json> version();
  // The versions of deepseek-operator.io that it serves.
  Result<std::vector<std::string>> api_versions();

 private:
  Result<std::vector<nlohmann::json>> list(const kube::Resource& resource,
                                           const std::string& selector, bool everywhere);
  // null when there is no such object.
  Result<nlohmann::json> find(const kube::Resource& resource, const std::string& name);
  Result<nlohmann::json> get_path(const std::string& path);

  kube::Client& client_;
  std::string ns_;
};

// What a person can do about it, after what the API server said.
Error explained(const kube::ApiError& error);
// The server does not know the kind of object at all; otherwise a 404 is about one object.
bool unknown_kind(const kube::ApiError& error);

}  // namespace dsm::ctl
