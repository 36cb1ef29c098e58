// For tests: an API server's answers about one Example, behind a scripted transport. It answers
// reads, remembers writes, and carries a merge patch of the model, of a pod or of its one node out.
#pragma once

#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "ctl/commands.h"
#include "ctl/testing/example.h"
#include "kube/testing/scripted_transport.h"

namespace dsm::ctl::testing {

class FakeCluster {
 public:
  FakeCluster() {
    transport.on_request([this](const kube::HttpRequest& request) { return answer(request); });
    clock.advance(kNow - clock.wall_now());
  }

  // What the API server drops of a patch: fields that its CRD does not know.
  std::vector<std::string> unknown_fields;
  std::map<std::string, kube::HttpResponse> more;  // by path

  Example example;
  json node = {{"metadata", {{"name", "node-1"}}}, {"spec", json::object()}};
  ManualClock clock;
  kube::testing::ScriptedTransport transport;
  kube::Client client{transport, clock, {}};
  Cluster cluster{client, "team-a"};
  std::istringstream in;
  std::ostringstream out;
  Io io{in, out, {}, false};

  static constexpr const char* kModels =
      "/apis/deepseek-operator.io/v1alpha1/namespaces/team-a/deepseekmodels";

 private:
  static kube::HttpResponse list(const char* kind, const std::vector<json>& items) {
    return kube::testing::json_answer(200, {{"kind", kind},
                                            {"apiVersion", "v1"},
                                            {"metadata", {{"resourceVersion", "7"}}},
                                            {"items", items}});
  }

  Result<kube::HttpResponse> answer(const kube::HttpRequest& request) {
    const std::string path = request.target.substr(0, request.target.find('?'));
    const std::string core = "/api/v1/namespaces/team-a/";
    if (const auto found = more.find(path); found != more.end()) return found->second;
    if (path == std::string(kModels) + "/r1") {
      if (request.method == "PATCH") patch(json::parse(request.body));
      return kube::testing::json_answer(200, example.model);
    }
    if (path == kModels) return list("DeepSeekModelList", {example.model});
    if (path == core + "pods") return list("PodList", example.pods);
    if (path == "/api/v1/pods") return list("PodList", pods_on(request.target));
    if (request.method == "PATCH" && path.starts_with(core + "pods/")) {
      return patch_pod(path.substr((core + "pods/").size()), json::parse(request.body));
    }
    if (path == "/api/v1/nodes/node-1" && request.method == "PATCH") {
      node.merge_patch(json::parse(request.body));
      return kube::testing::json_answer(200, node);
    }
    if (path == core + "services/r1") return kube::testing::json_answer(200, example.services[0]);
    if (path == core + "services/r1-ranks") {
      return kube::testing::json_answer(200, example.services[1]);
    }
    if (path == core + "secrets/r1-internal") {
      return kube::testing::json_answer(200, example.secret);
    }
    if (path == "/apis/apps/v1/namespaces/team-a/controllerrevisions") {
      return list("ControllerRevisionList", example.revisions);
    }
    return kube::testing::status_answer(404, "NotFound", "not found");
  }

  // Of the field selector spec.nodeName, which is the last of the target.
  std::vector<json> pods_on(const std::string& target) const {
    std::vector<json> found;
    for (const json& pod : example.pods) {
      const std::string node_name = pod["spec"]["nodeName"];
      if (target.find("spec.nodeName%3D" + node_name) != std::string::npos) found.push_back(pod);
    }
    return found;
  }

  kube::HttpResponse patch_pod(const std::string& name, const json& change) {
    for (json& pod : example.pods) {
      if (pod["metadata"]["name"] != name) continue;
      pod.merge_patch(change);
      return kube::testing::json_answer(200, pod);
    }
    return kube::testing::status_answer(404, "NotFound", "not found");
  }

  void patch(const json& change) {
    example.model.merge_patch(change);
    for (const std::string& pointer : unknown_fields) {
      const json::json_pointer at(pointer);
      if (example.model.contains(at)) example.model[at.parent_pointer()].erase(at.back());
    }
  }
};

}  // namespace dsm::ctl::testing
