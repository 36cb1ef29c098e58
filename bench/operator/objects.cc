#include "bench/operator/objects.h"

#include <stdexcept>

#include "base/random.h"
#include "operator/plan/plan.h"

namespace dsm::bench {
namespace {

const WallTime kNow = from_rfc3339("2026-01-01T00:00:00Z");
constexpr int kTurns = 10;  // of looks until a model is as it should be

std::string time_text() {
  return to_rfc3339(kNow);
}

std::string uid() {
  const std::string hex = random_hex(16);
  return hex.substr(0, 8) + "-" + hex.substr(8, 4) + "-" + hex.substr(12, 4) + "-" +
         hex.substr(16, 4) + "-" + hex.substr(20);
}

// Who wrote which field, about as long as an API server says it.
Json fields_of(const Json& value) {
  Json fields = Json::object();
  if (value.is_object()) {
    for (const auto& [key, each] : value.items()) fields["f:" + key] = fields_of(each);
  } else if (value.is_array() && !value.empty() && value.front().is_object()) {
    for (const Json& each : value) {
      const Json name = each.value("name", each.value("type", Json("")));
      fields[R"(k:{"name":)" + name.dump() + "}"] = fields_of(each);
    }
  }
  return fields;
}

// What the API server adds when an object is made.
Json stored(Json object) {
  static int version = 1000;
  Json& metadata = object["metadata"];
  Json fields = fields_of(object);
  metadata["uid"] = uid();
  metadata["resourceVersion"] = std::to_string(++version);
  metadata["creationTimestamp"] = time_text();
  metadata["managedFields"] = Json::array({{{"apiVersion", object["apiVersion"]},
                                            {"fieldsType", "FieldsV1"},
                                            {"fieldsV1", std::move(fields)},
                                            {"manager", "deepseek-operator"},
                                            {"operation", "Update"},
                                            {"time", time_text()}}});
  return object;
}

Json condition(const char* type) {
  return {{"lastProbeTime", nullptr},
          {"lastTransitionTime", time_text()},
          {"status", "True"},
          {"type", type}};
}

// A pod on a node, in a network of its own model's.
Json running(Json pod, int model, int number) {
  const std::string ip = "127." + std::to_string(1 + model / 250) + "." +
                         std::to_string(1 + model % 250) + "." + std::to_string(1 + number);
  pod["spec"]["nodeName"] = "node-" + std::to_string((model + number) % 100);
  pod["spec"]["serviceAccountName"] = "default";
  pod["spec"]["schedulerName"] = "default-scheduler";
  pod["spec"]["dnsPolicy"] = "ClusterFirst";
  pod["status"] = {
      {"phase", "Running"},
      {"hostIP", "10.0.0.1"},
      {"podIP", ip},
      {"podIPs", Json::array({{{"ip", ip}}})},
      {"qosClass", "BestEffort"},
      {"startTime", time_text()},
      {"conditions", Json::array({condition("Initialized"), condition("Ready"),
                                  condition("ContainersReady"), condition("PodScheduled")})},
      {"containerStatuses",
       Json::array({{{"name", "worker"},
                     {"image", "deepseek-worker:1"},
                     {"imageID", "sha256:" + std::string(64, '0')},
                     {"lastState", Json::object()},
                     {"ready", true},
                     {"restartCount", 0},
                     {"state", {{"running", {{"startedAt", time_text()}}}}}}})}};
  return stored(std::move(pod));
}

// The children of a kind.
std::vector<Json> of_kind(const std::vector<Json>& children, const std::string& kind) {
  std::vector<Json> found;
  for (const Json& child : children) {
    if (child["kind"] == kind) found.push_back(child);
  }
  return found;
}

}  // namespace

std::string status_line() {
  return R"({"phase":"Ready","reason":"Ready","message":"the group is ready","loadedBytes":1073741824,)"
         R"("totalBytes":1073741824,"queueDepth":0,"running":0,"kvUsed":0,"kvTotal":65536,)"
         R"("tokensPerSecond":0.0,"maxModelLen":8192,"lastError":"","time":"2026-01-01T00:00:00Z"})";
}

Objects serving_model(int number) {
  plan::Observed observed;
  observed.model = stored({{"apiVersion", "deepseek-operator.io/v1alpha1"},
                           {"kind", "DeepSeekModel"},
                           {"metadata",
                            {{"name", "n" + std::to_string(number)},
                             {"namespace", "team-" + std::to_string(number % 10)},
                             {"generation", 1}}},
                           {"spec",
                            {{"model", {{"uri", "image:///models/deepseek-tiny"}}},
                             {"replicas", kGroups},
                             {"parallelism", {{"tensor", kPodsPerGroup}, {"ranksPerPod", 1}}}}},
                           {"status", Json::object()}});
  observed.config.worker_image = "deepseek-worker:1";
  observed.config.watches_nodes = true;
  observed.metrics_api.state = plan::MetricsApi::State::kOff;
  observed.fresh_token = random_hex(32);
  observed.now = kNow;
  Objects objects;
  for (int turn = 0; turn < kTurns; ++turn) {
    const plan::Plan plan = plan::plan(observed);
    if (plan.quiet()) break;
    for (const plan::ChildWrite& child : plan.children) {
      observed.children.push_back(stored(child.object));
    }
    for (const Json& pod : plan.create_pods) {
      objects.pods.push_back(running(pod, number, static_cast<int>(objects.pods.size())));
      observed.pods.push_back(plan::pod_view(objects.pods.back()));
      if (observed.pods.back().index != 0) continue;
      observed.leaders[observed.pods.back().uid] = *plan::leader_status(status_line(), kNow);
    }
    if (plan.status) observed.model["status"] = *plan.status;
  }
  objects.model = stored(observed.model);
  objects.model["metadata"]["uid"] = observed.model["metadata"]["uid"];
  objects.services = of_kind(observed.children, "Service");
  objects.revisions = of_kind(observed.children, "ControllerRevision");
  objects.budgets = of_kind(observed.children, "PodDisruptionBudget");
  if (observed.model["status"].value("ready", "") !=
      std::to_string(kGroups) + "/" + std::to_string(kGroups)) {
    throw std::runtime_error("the model does not serve: " + observed.model["status"].dump());
  }
  return objects;
}

}  // namespace dsm::bench
