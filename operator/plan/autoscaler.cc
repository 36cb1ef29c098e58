#include "operator/plan/autoscaler.h"

#include <algorithm>

#include "operator/api/names.h"
#include "operator/api/reasons.h"
#include "operator/plan/cold_start.h"
#include "operator/plan/look.h"

namespace dsm::plan {
namespace {

using nlohmann::json;

// Kubernetes' own period of a policy, in seconds.
constexpr int kShortestPeriod = 15;

// The sum over the model divided by `each` is the number of groups. AverageValue and not Value,
// because that does not depend on how many groups are ready while others still start.
json metric(std::string_view model, MetricSource source, std::string_view name, int each) {
  const json target = {{"type", "AverageValue"}, {"averageValue", std::to_string(each)}};
  if (source == MetricSource::kObject) {
    return {{"type", "Object"},
            {"object",
             {{"describedObject",
               {{"apiVersion", api::kApiVersion}, {"kind", api::kKind}, {"name", model}}},
              {"metric", {{"name", name}}},
              {"target", target}}}};
  }
  return {{"type", "External"},
          {"external",
           {{"metric",
             {{"name", name},
              {"selector", {{"matchLabels", {{std::string(api::kMetricModelLabel), model}}}}}}},
            {"target", target}}}};
}

json policy(const char* type, int value, int period_s) {
  return {{"type", type}, {"value", value}, {"periodSeconds", period_s}};
}

// Kubernetes' own defaults but for the period upwards and the window downwards. Each is said, so
// that a cluster with others behaves alike and the object compares equal with what the API server
// made of it.
json behavior(const api::Scaling& scaling, int cold_start_s) {
  const int up_s = scale_up_period(cold_start_s);
  return {{"scaleUp",
           {{"stabilizationWindowSeconds", 0},
            {"selectPolicy", "Max"},
            {"policies", json::array({policy("Pods", 4, up_s), policy("Percent", 100, up_s)})}}},
          {"scaleDown",
           {{"stabilizationWindowSeconds", scaling.scale_down_window_seconds},
            {"selectPolicy", "Max"},
            {"policies", json::array({policy("Percent", 100, kShortestPeriod)})}}}};
}

std::string text(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

// What the autoscaler says is in its way; empty: nothing.
std::string complaint(const json& autoscaler) {
  const json conditions = autoscaler.value(json::json_pointer("/status/conditions"), json::array());
  for (const json& condition : conditions) {
    const std::string type = text(condition, "type");
    if (type != api::kScalingActive && type != "AbleToScale") continue;
    if (text(condition, "status") != "False") continue;
    return text(condition, "reason") + ": " + text(condition, "message");
  }
  return {};
}

}  // namespace

int wanted_replicas(const api::Spec& spec) {
  if (!spec.scaling.on()) return spec.replicas;
  return std::clamp(spec.replicas, spec.scaling.min_replicas, *spec.scaling.max_replicas);
}

int scale_up_period(int cold_start_s) {
  return std::clamp(cold_start_s, kShortestPeriod, kLongestColdStart);
}

json autoscaler_json(const Owner& owner, const api::Scaling& scaling, MetricSource source,
                     int cold_start_s) {
  json metrics =
      json::array({metric(owner.name, source, api::kQueueDepthMetric, scaling.queue_depth)});
  if (scaling.running) {
    metrics.push_back(metric(owner.name, source, api::kRunningMetric, *scaling.running));
  }
  return {{"apiVersion", "autoscaling/v2"},
          {"kind", "HorizontalPodAutoscaler"},
          {"metadata", child_metadata(owner, api::autoscaler(owner.name))},
          {"spec",
           {{"scaleTargetRef",
             {{"apiVersion", api::kApiVersion}, {"kind", api::kKind}, {"name", owner.name}}},
            {"minReplicas", scaling.min_replicas},
            {"maxReplicas", *scaling.max_replicas},
            {"metrics", std::move(metrics)},
            {"behavior", behavior(scaling, cold_start_s)}}}};
}

AutoscalerWish autoscaler_wish(const Look& look) {
  if (!look.spec) return AutoscalerWish::kKeep;
  if (!look.spec->scaling.on()) return AutoscalerWish::kNone;
  switch (look.observed.metrics_api.state) {
    case MetricsApi::State::kPending:
      return AutoscalerWish::kKeep;
    case MetricsApi::State::kOurs:
    case MetricsApi::State::kCustom:
      return AutoscalerWish::kWanted;
    case MetricsApi::State::kOff:
    case MetricsApi::State::kForeign:
      break;
  }
  return AutoscalerWish::kNone;
}

std::optional<api::Condition> scaling_condition(const Look& look, const json* there) {
  if (look.spec ? !look.spec->scaling.on()
                : api::find_condition(look.before, api::kScalingActive) == nullptr) {
    return std::nullopt;
  }
  api::Condition condition;
  condition.type = api::kScalingActive;
  condition.observed_generation = look.generation;
  const auto say = [&](api::Truth truth, std::string_view reason, std::string message) {
    condition.status = truth;
    condition.reason = reason;
    condition.message = std::move(message);
    return condition;
  };
  if (!look.spec) {
    return say(api::Truth::kUnknown, api::kInvalidSpec,
               "nothing is changed until the spec is mended");
  }
  const MetricsApi& metrics = look.observed.metrics_api;
  if (metrics.state == MetricsApi::State::kOff) {
    return say(api::Truth::kFalse, api::kMetricsApiOff,
               "the operator serves no metrics to autoscalers: install its chart with "
               "metricsApi.enabled=true and without watchNamespace, or leave out spec.scaling");
  }
  if (metrics.state == MetricsApi::State::kForeign) {
    return say(api::Truth::kFalse, api::kForeignMetricsServer,
               "external.metrics.k8s.io is served by " + metrics.owner +
                   " and custom.metrics.k8s.io by " + metrics.custom_owner +
                   "; both are left alone, so no HorizontalPodAutoscaler is made. spec.replicas "
                   "counts, within the bounds of spec.scaling");
  }
  if (metrics.state == MetricsApi::State::kPending || there == nullptr ||
      controller_uid(*there) != look.owner.uid) {
    return say(api::Truth::kUnknown, api::kMetricsApiPending,
               "the metrics that the autoscaler reads, or the autoscaler itself, are being made");
  }
  if (std::string why = complaint(*there); !why.empty()) {
    return say(api::Truth::kFalse, api::kAutoscalerInactive,
               "the HorizontalPodAutoscaler does not scale: " + why);
  }
  const api::Scaling& scaling = look.spec->scaling;
  const std::string why = look.schedule.empty() ? "" : " (schedule " + look.schedule + ")";
  const std::string through =
      metrics.state == MetricsApi::State::kCustom
          ? "; read from custom.metrics.k8s.io, because external.metrics.k8s.io is served by " +
                metrics.owner
          : "";
  return say(api::Truth::kTrue, api::kAsWanted,
             "between " + std::to_string(scaling.min_replicas) + " and " +
                 std::to_string(*scaling.max_replicas) + " groups" + why + ", one for each " +
                 std::to_string(scaling.queue_depth) + " requests that wait" + through);
}

}  // namespace dsm::plan
