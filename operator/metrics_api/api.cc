#include "operator/metrics_api/api.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "operator/api/names.h"

namespace dsm::metrics_api {
namespace {

using nlohmann::json;

struct Metric {
  std::string_view name;
  long (*thousandths)(const plan::ModelLoad&);
};

constexpr std::array<Metric, 4> kMetrics = {{
    {api::kQueueDepthMetric, [](const plan::ModelLoad& l) { return l.queue_depth * 1000; }},
    {api::kQueueAgeMetric, [](const plan::ModelLoad& l) { return l.queue_age_s * 1000; }},
    {api::kRunningMetric, [](const plan::ModelLoad& l) { return l.running * 1000; }},
    {api::kCacheUsageMetric,
     [](const plan::ModelLoad& l) { return l.kv_total > 0 ? l.kv_used * 1000 / l.kv_total : 0; }},
}};

std::string group_version() {
  return std::string(kMetricsGroup) + "/" + std::string(kMetricsVersion);
}

http::Response json_answer(const json& body, int code = 200) {
  return {code, "application/json", body.dump(-1, ' ', false, json::error_handler_t::replace), {}};
}

json group() {
  const json version = {{"groupVersion", group_version()}, {"version", kMetricsVersion}};
  return {{"kind", "APIGroup"},
          {"apiVersion", "v1"},
          {"name", kMetricsGroup},
          {"versions", json::array({version})},
          {"preferredVersion", version}};
}

json groups() {
  json one = group();
  one.erase("kind");
  one.erase("apiVersion");
  return {
      {"kind", "APIGroupList"}, {"apiVersion", "v1"}, {"groups", json::array({std::move(one)})}};
}

json resources() {
  json list = json::array();
  for (const Metric& metric : kMetrics) {
    list.push_back({{"name", metric.name},
                    {"singularName", ""},
                    {"namespaced", true},
                    {"kind", "ExternalMetricValueList"},
                    {"verbs", json::array({"get"})}});
  }
  return {{"kind", "APIResourceList"},
          {"apiVersion", "v1"},
          {"groupVersion", group_version()},
          {"resources", std::move(list)}};
}

std::map<std::string, std::string> labels_of(const plan::ModelLoad& load) {
  return {{std::string(api::kMetricModelLabel), load.model}};
}

http::Response values(const Call& call, const View& view) {
  const auto metric = std::ranges::find(kMetrics, call.metric, &Metric::name);
  if (metric == kMetrics.end()) {
    std::string known;
    for (const Metric& one : kMetrics) known += (known.empty() ? "" : ", ") + std::string(one.name);
    return status_answer(404, "there is no metric " + call.metric + "; there are " + known);
  }
  if (!view.synced) return status_answer(503, "the operator has not read the cluster yet");
  json items = json::array();
  for (const plan::ModelLoad& load : view.loads) {
    const auto labels = labels_of(load);
    if (!matches(call.selector, labels)) continue;
    if (!load.unknown.empty()) {
      return status_answer(503, "the load of DeepSeekModel " + call.ns + "/" + load.model +
                                    " is not known: " + load.unknown);
    }
    items.push_back({{"metricName", call.metric},
                     {"metricLabels", labels},
                     {"timestamp", to_rfc3339(load.time)},
                     {"value", quantity(metric->thousandths(load))}});
  }
  if (items.empty()) {
    return status_answer(404, "no DeepSeekModel of namespace " + call.ns +
                                  " is meant by the label selector; the label is \"" +
                                  std::string(api::kMetricModelLabel) + "\", the model's name");
  }
  return json_answer({{"kind", "ExternalMetricValueList"},
                      {"apiVersion", group_version()},
                      {"metadata", json::object()},
                      {"items", std::move(items)}});
}

std::string_view reason_of(int code) {
  switch (code) {
    case 400:
      return "BadRequest";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "NotFound";
    case 405:
      return "MethodNotAllowed";
    case 429:
      return "TooManyRequests";
    case 503:
      return "ServiceUnavailable";
    default:
      return "InternalError";
  }
}

// The value of a parameter of a query, as text; nothing when it is not there.
Result<std::string> parameter(std::string_view query, std::string_view name) {
  while (!query.empty()) {
    const auto end = std::min(query.find('&'), query.size());
    std::string_view pair = query.substr(0, end);
    query.remove_prefix(std::min(end + 1, query.size()));
    const auto equals = std::min(pair.find('='), pair.size());
    if (pair.substr(0, equals) != name) continue;
    std::string value(pair.substr(std::min(equals + 1, pair.size())));
    std::ranges::replace(value, '+', ' ');
    auto decoded = http::percent_decode(value);
    if (!decoded) return fail(ErrorKind::kInvalid, "the query cannot be read");
    return *std::move(decoded);
  }
  return std::string();
}

}  // namespace

Result<double> number_of(const View& view, const std::string& model, const std::string& metric) {
  const auto known = std::ranges::find(kMetrics, metric, &Metric::name);
  if (known == kMetrics.end()) return fail(ErrorKind::kNotFound, "there is no metric " + metric);
  if (!view.synced) return fail(ErrorKind::kTransient, "the operator has not seen all models yet");
  const auto load = std::ranges::find(view.loads, model, &plan::ModelLoad::model);
  if (load == view.loads.end()) {
    return fail(ErrorKind::kNotFound, "there is no DeepSeekModel " + model);
  }
  if (!load->unknown.empty()) {
    return fail(ErrorKind::kTransient, metric + " of " + model + " is not known: " + load->unknown);
  }
  constexpr double kThousand = 1000;
  return static_cast<double>(known->thousandths(*load)) / kThousand;
}

std::string quantity(long thousandths) {
  return thousandths % 1000 == 0 ? std::to_string(thousandths / 1000)
                                 : std::to_string(thousandths) + "m";
}

http::Response status_answer(int code, const std::string& message) {
  return json_answer({{"kind", "Status"},
                      {"apiVersion", "v1"},
                      {"metadata", json::object()},
                      {"status", "Failure"},
                      {"message", message},
                      {"reason", reason_of(code)},
                      {"code", code}},
                     code);
}

Result<Call> call_of(std::string path, std::string_view query) {
  Call call;
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  call.path = path;
  const std::string group_path = "/apis/" + std::string(kMetricsGroup);
  const std::string resources_path = group_path + "/" + std::string(kMetricsVersion);
  const std::string namespaces = resources_path + "/namespaces/";
  if (path == "/healthz" || path == "/livez" || path == "/readyz") {
    call.kind = Call::Kind::kHealth;
  } else if (path == "/apis") {
    call.kind = Call::Kind::kGroups;
  } else if (path == group_path) {
    call.kind = Call::Kind::kGroup;
  } else if (path == resources_path) {
    call.kind = Call::Kind::kResources;
  } else if (path.starts_with(namespaces)) {
    const std::string_view rest = std::string_view(path).substr(namespaces.size());
    const auto slash = rest.find('/');
    if (slash == 0 || slash == std::string_view::npos) return call;
    const std::string_view metric = rest.substr(slash + 1);
    if (metric.empty() || metric.contains('/')) return call;
    auto text = parameter(query, "labelSelector");
    if (!text) return std::unexpected(text.error());
    auto selector = parse_selector(*text);
    if (!selector) return std::unexpected(selector.error());
    call.kind = Call::Kind::kMetric;
    call.ns = rest.substr(0, slash);
    call.metric = metric;
    call.selector = *std::move(selector);
  }
  return call;
}

http::Response answer(const Call& call, const View& view) {
  switch (call.kind) {
    case Call::Kind::kHealth:
      return {200, "text/plain; charset=utf-8", "ok\n", {}};
    case Call::Kind::kGroups:
      return json_answer(groups());
    case Call::Kind::kGroup:
      return json_answer(group());
    case Call::Kind::kResources:
      return json_answer(resources());
    case Call::Kind::kMetric:
      return values(call, view);
    case Call::Kind::kOther:
      break;
  }
  return status_answer(404, "there is nothing at " + call.path);
}

}  // namespace dsm::metrics_api
