// For tests: an API server's answers about one Example, behind a scripted transport. It answers
// reads, remembers writes, and carries a merge patch of the model out.
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

  void patch(const json& change) {
    example.model.merge_patch(change);
    for (const std::string& pointer : unknown_fields) {
      const json::json_pointer at(pointer);
      if (example.model.contains(at)) example.model[at.parent_pointer()].erase(at.back());
    }
  }
};

}  // namespace dsm::ctl::testing
