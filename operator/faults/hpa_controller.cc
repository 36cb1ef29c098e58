#include "operator/faults/hpa_controller.h"

#include <algorithm>
#include <cmath>

#include "kube/parse.h"
#include "operator/plan/simulate_json.h"

namespace dsm::faults {
namespace {

using kube::member;
using kube::text_of;

constexpr int kEvery = 15;  // seconds
constexpr double kTolerance = 0.1;

int number(const Json& from, const char* name, int otherwise) {
  return from.is_object() ? from.value(name, otherwise) : otherwise;
}

}  // namespace

void HpaController::pass_second() {
  std::map<std::string, Memory> there;
  for (const auto& [key, autoscaler] : std::map(server_.objects().all(kube::kAutoscalers))) {
    const std::string uid = text_of(autoscaler["metadata"], "uid");
    Memory& memory = there[uid] = std::move(memories_[uid]);
    if (now_s() < memory.next) continue;
    memory.next = now_s() + kEvery;
    look(key, autoscaler, memory);
  }
  memories_ = std::move(there);
}

void HpaController::say(Json& autoscaler, const char* condition, bool is, const char* reason) {
  plan::set_condition(autoscaler, condition, is, reason, "", server_.kubelets().now());
}

void HpaController::look(const std::string& key, Json autoscaler, Memory& memory) {
  const std::string name = autoscaler["spec"]["scaleTargetRef"]["name"];
  const std::string target = key.substr(0, key.find('/') + 1) + name;
  const Json before = autoscaler;
  const Json* const model = server_.objects().find(kube::kDeepSeekModels, target);
  say(autoscaler, "AbleToScale", model != nullptr,
      model == nullptr ? "FailedGetScale" : "SucceededGetScale");
  if (model != nullptr) {
    const int current = number((*model)["spec"], "replicas", 1);
    const int there = number(member(*model, "status"), "replicas", 0);
    const auto wanted = desired(target, current, there, autoscaler, memory);
    autoscaler["status"]["currentReplicas"] = there;
    autoscaler["status"]["desiredReplicas"] = wanted.value_or(current);
    if (wanted && *wanted != current) {
      if (*wanted > current) memory.added.emplace_back(now_s(), *wanted - current);
      hooks_.scales(target, current, *wanted);
      server_.edit_model(target, {{"replicas", *wanted}});
    }
  }
  if (autoscaler == before) return;
  ++said_;
  server_.objects().put(kube::kAutoscalers, std::move(autoscaler));
}

// Nothing: it stays as it is.
std::optional<int> HpaController::desired(const std::string& model, int current, int there,
                                          Json& autoscaler, Memory& memory) {
  const Json spec = autoscaler["spec"];
  const int least = number(spec, "minReplicas", 1);
  const int most = spec["maxReplicas"];
  if (current == 0) {
    say(autoscaler, "ScalingActive", false, "ScalingDisabled");
    return std::nullopt;
  }
  if (current < least || current > most) return std::clamp(current, least, most);
  const Wish wished = wish(model, there, spec);
  if (!wished.replicas || (!wished.all_known && *wished.replicas < current)) {
    say(autoscaler, "ScalingActive", false, "FailedGetExternalMetric");
    return std::nullopt;
  }
  say(autoscaler, "ScalingActive", true, "ValidMetricFound");
  return std::clamp(smoothed(*wished.replicas, current, spec, memory), least, most);
}

HpaController::Wish HpaController::wish(const std::string& model, int there, const Json& spec) {
  Wish wish;
  for (const Json& metric : spec["metrics"]) {
    const Json& external = metric["external"];
    const auto sum = hooks_.ask(model, external["metric"]["name"]);
    if (!sum) {
      wish.all_known = false;
      continue;
    }
    const double each = std::stod(external["target"]["averageValue"].get<std::string>());
    // What is not a number is outside of the tolerance.
    const bool close = std::abs(*sum / (each * there) - 1) <= kTolerance;
    const int replicas = close ? there : static_cast<int>(std::ceil(*sum / each));
    wish.replicas = std::max(wish.replicas.value_or(0), replicas);
  }
  return wish;
}

// Down only as far as was enough all through the window, up by no more than the policies say.
int HpaController::smoothed(int wished, int current, const Json& spec, Memory& memory) const {
  const int window = spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"];
  memory.wished.emplace_back(now_s(), wished);
  std::erase_if(memory.wished, [&](const auto& each) { return each.first + window < now_s(); });
  int most = wished;
  for (const auto& [second, replicas] : memory.wished) most = std::max(most, replicas);
  if (wished > current) return std::min(wished, most_upwards(current, spec, memory));
  return std::min(current, most);
}

int HpaController::most_upwards(int current, const Json& spec, Memory& memory) const {
  int most = 0;
  for (const Json& policy : spec["behavior"]["scaleUp"]["policies"]) {
    int before = current;  // when the period began
    for (const auto& [second, by] : memory.added) {
      if (second + policy["periodSeconds"].get<int>() > now_s()) before -= by;
    }
    const int value = policy["value"];
    most = std::max(most, policy["type"] == "Pods"
                              ? before + value
                              : static_cast<int>(std::ceil(before * (1 + value / 100.0))));
  }
  return std::max(current, most);
}

}  // namespace dsm::faults
