// For tests: a model "r1" in namespace "team-a" with the objects that the operator has made of it,
// as the API server hands them out.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "operator/api/names.h"
#include "operator/api/spec.h"
#include "operator/plan/children.h"
#include "operator/plan/observed.h"
#include "operator/plan/pod.h"

namespace dsm::ctl::testing {

using nlohmann::json;

inline const plan::Owner kOwner{"r1", "team-a", "uid-r1"};
inline const WallTime kNow = from_rfc3339("2026-01-02T12:00:00Z");

inline json example_spec() {
  return {{"model", {{"uri", "image:///models/deepseek-tiny"}, {"revision", "a"}}},
          {"parallelism", {{"tensor", 2}, {"ranksPerPod", 1}}},
          {"replicas", 2}};
}

inline plan::Revision revision_of(const json& spec, long number) {
  const auto parsed = api::parse_spec(spec);
  return {api::revision_of(parsed.value()), *parsed, "worker:1", number};
}

inline json revision_object(const json& spec, long number) {
  json object = plan::revision_json(kOwner, revision_of(spec, number));
  object["metadata"]["creationTimestamp"] = "2026-01-01T12:00:00Z";
  object["metadata"]["uid"] = "uid-revision-" + std::to_string(number);
  return object;
}

inline json pod_object(const plan::Revision& revision, int group, int index, bool ready) {
  json pod = plan::pod_json(kOwner, revision, {group, index, {}}, {});
  pod["metadata"]["uid"] = "uid-" + pod["metadata"]["name"].get<std::string>();
  pod["metadata"]["creationTimestamp"] = "2026-01-01T12:00:00Z";
  pod["spec"]["nodeName"] = "node-" + std::to_string(index + 1);
  pod["status"] = {
      {"phase", "Running"},
      {"conditions", {{{"type", "Ready"}, {"status", ready ? "True" : "False"}}}},
      {"containerStatuses", {{{"restartCount", 0}, {"state", {{"running", json::object()}}}}}}};
  return pod;
}

struct Example {
  json model;
  std::vector<json> pods;
  std::vector<json> services;
  std::vector<json> revisions;
  json secret;

  // Two groups of two pods that serve.
  explicit Example(const json& spec = example_spec()) {
    const plan::Revision revision = revision_of(spec, 1);
    for (int group = 0; group < 2; ++group) {
      for (int index = 0; index < 2; ++index) {
        pods.push_back(pod_object(revision, group, index, true));
      }
    }
    services = {plan::serving_service_json(kOwner, false), plan::ranks_service_json(kOwner)};
    for (json& service : services) {
      service["metadata"]["uid"] = "uid-" + service["metadata"]["name"].get<std::string>();
    }
    revisions = {revision_object(spec, 1)};
    secret = plan::token_secret_json(kOwner, "token-of-r1");
    json groups = json::array();
    for (const char* number : {"0", "1"}) {
      groups.push_back({{"name", "r1-" + revision.name + "-" + number},
                        {"revision", revision.name},
                        {"phase", "Ready"},
                        {"nodes", {"node-1", "node-2"}}});
    }
    model = {{"apiVersion", api::kApiVersion},
             {"kind", api::kKind},
             {"metadata",
              {{"name", "r1"},
               {"namespace", "team-a"},
               {"uid", kOwner.uid},
               {"generation", 1},
               {"creationTimestamp", "2026-01-02T11:56:00Z"}}},
             {"spec", spec},
             {"status",
              {{"observedGeneration", 1},
               {"readyReplicas", 2},
               {"queueDepth", 3},
               {"currentRevision", revision.name},
               {"updatedRevision", revision.name},
               {"groups", groups},
               {"conditions",
                {{{"type", "Ready"},
                  {"status", "True"},
                  {"reason", "AllGroupsReady"},
                  {"message", "2 of 2 groups answer"}},
                 {{"type", "Degraded"},
                  {"status", "False"},
                  {"reason", "AsWanted"},
                  {"message", "nothing is wrong"}}}}}}};
  }

  plan::Observed observed() const {
    plan::Observed seen;
    seen.model = model;
    seen.now = kNow;
    seen.config.worker_image = "worker:1";
    for (const json& pod : pods) seen.pods.push_back(plan::pod_view(pod));
    seen.children = services;
    seen.children.insert(seen.children.end(), revisions.begin(), revisions.end());
    if (!secret.is_null()) seen.children.push_back(secret);
    return seen;
  }
};

}  // namespace dsm::ctl::testing
