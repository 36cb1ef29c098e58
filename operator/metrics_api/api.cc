#include "operator/metrics_api/api.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "operator/api/names.h"
#include "operator/metrics_api/numbers.h"

namespace dsm::metrics_api {
namespace {

using nlohmann::json;

http::Response json_answer(const json& body, int code = 200) {
  return {code, "application/json", body.dump(-1, ' ', false, json::error_handler_t::replace), {}};
}

json group_json(const Group& group) {
  const json version = {{"groupVersion", group.api_version()}, {"version", group.version}};
  return {{"kind", "APIGroup"},
          {"apiVersion", "v1"},
          {"name", group.name},
          {"versions", json::array({version})},
          {"preferredVersion", version}};
}

json groups_json() {
  json all = json::array();
  for (const Group& group : kServedGroups) {
    json one = group_json(group);
    one.erase("kind");
    one.erase("apiVersion");
    all.push_back(std::move(one));
  }
  return {{"kind", "APIGroupList"}, {"apiVersion", "v1"}, {"groups", std::move(all)}};
}

json resources_json(const Group& group) {
  const std::string of = group == kCustomMetrics ? std::string(kModelsResource) + "/" : "";
  json list = json::array();
  for (const Number& number : kNumbers) {
    list.push_back({{"name", of + std::string(number.name)},
                    {"singularName", ""},
                    {"namespaced", true},
                    {"kind", group.list_kind},
                    {"verbs", json::array({"get"})}});
  }
  return {{"kind", "APIResourceList"},
          {"apiVersion", "v1"},
          {"groupVersion", group.api_version()},
          {"resources", std::move(list)}};
}

std::map<std::string, std::string> labels_of(const plan::ModelLoad& load) {
  return {{std::string(api::kMetricModelLabel), load.model}};
}

json item_json(const Call& call, const Number& number, const plan::ModelLoad& load) {
  json item = {{"timestamp", to_rfc3339(load.time)}, {"value", quantity(number.thousandths(load))}};
  if (call.kind == Call::Kind::kExternal) {
    item["metricName"] = number.name;
    item["metricLabels"] = labels_of(load);
  } else {
    item["describedObject"] = {{"apiVersion", api::kApiVersion},
                               {"kind", api::kKind},
                               {"namespace", call.ns},
                               {"name", load.model}};
    item["metric"] = {{"name", number.name}, {"selector", nullptr}};
  }
  return item;
}

// Why a call means no model at all.
std::string nothing_meant(const Call& call) {
  if (call.kind == Call::Kind::kObject) {
    return "there is no DeepSeekModel " + call.ns + "/" + call.model +
           " that the metric label selector leaves; models are asked for one by one";
  }
  return "no DeepSeekModel of namespace " + call.ns +
         " is meant by the label selector; the label is \"" + std::string(api::kMetricModelLabel) +
         "\", the model's name";
}

http::Response values(const Call& call, const View& view) {
  const Number* number = find_number(call.metric);
  if (number == nullptr) {
    return status_answer(404,
                         "there is no metric " + call.metric + "; there are " + number_names());
  }
  if (!view.synced) return status_answer(503, "the operator has not read the cluster yet");
  json items = json::array();
  for (const plan::ModelLoad& load : view.loads) {
    if (call.kind == Call::Kind::kObject && load.model != call.model) continue;
    if (!matches(call.selector, labels_of(load))) continue;
    if (!load.unknown.empty()) {
      return status_answer(503, "the load of DeepSeekModel " + call.ns + "/" + load.model +
                                    " is not known: " + load.unknown);
    }
    items.push_back(item_json(call, *number, load));
  }
  if (items.empty()) return status_answer(404, nothing_meant(call));
  return json_answer({{"kind", call.group.list_kind},
                      {"apiVersion", call.group.api_version()},
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

}  // namespace

Result<double> number_of(const View& view, const std::string& model, const std::string& metric) {
  const Number* number = find_number(metric);
  if (number == nullptr) return fail(ErrorKind::kNotFound, "there is no metric " + metric);
  if (!view.synced) return fail(ErrorKind::kTransient, "the operator has not seen all models yet");
  const auto load = std::ranges::find(view.loads, model, &plan::ModelLoad::model);
  if (load == view.loads.end()) {
    return fail(ErrorKind::kNotFound, "there is no DeepSeekModel " + model);
  }
  if (!load->unknown.empty()) {
    return fail(ErrorKind::kTransient, metric + " of " + model + " is not known: " + load->unknown);
  }
  return value_of(*number, *load);
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

http::Response answer(const Call& call, const View& view) {
  switch (call.kind) {
    case Call::Kind::kHealth:
      return {200, "text/plain; charset=utf-8", "ok\n", {}};
    case Call::Kind::kGroups:
      return json_answer(groups_json());
    case Call::Kind::kGroup:
      return json_answer(group_json(call.group));
    case Call::Kind::kResources:
      return json_answer(resources_json(call.group));
    case Call::Kind::kExternal:
    case Call::Kind::kObject:
      return values(call, view);
    case Call::Kind::kOther:
      break;
  }
  return status_answer(404, "there is nothing at " + call.path);
}

}  // namespace dsm::metrics_api
