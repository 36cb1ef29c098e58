#include "operator/metrics_api/call.h"

#include <algorithm>
#include <span>
#include <vector>

#include "base/http/message.h"
#include "operator/api/names.h"
#include "operator/metrics_api/utf8.h"

namespace dsm::metrics_api {
namespace {

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

// The parts of "/a/b/c"; nothing when one is empty.
std::vector<std::string_view> parts_of(std::string_view path) {
  std::vector<std::string_view> parts;
  while (!path.empty()) {
    path.remove_prefix(1);
    const auto end = std::min(path.find('/'), path.size());
    if (end == 0) return {};
    parts.push_back(path.substr(0, end));
    path.remove_prefix(end);
  }
  return parts;
}

Status read_selector(std::string_view query, std::string_view name, Call& call) {
  auto text = parameter(query, name);
  if (!text) return std::unexpected(text.error());
  auto selector = parse_selector(*text);
  if (!selector) return std::unexpected(selector.error());
  call.selector = *std::move(selector);
  return {};
}

// `rest` is what follows /apis/<group>/<version>/namespaces.
Status read_numbers(std::span<const std::string_view> rest, std::string_view query, Call& call) {
  if (call.group == kExternalMetrics && rest.size() == 2) {
    call.kind = Call::Kind::kExternal;
    call.ns = rest[0];
    call.metric = rest[1];
    return read_selector(query, "labelSelector", call);
  }
  if (call.group == kCustomMetrics && rest.size() == 4 && rest[1] == kModelsResource) {
    call.kind = Call::Kind::kObject;
    call.ns = rest[0];
    call.model = rest[2];
    call.metric = rest[3];
    return read_selector(query, "metricLabelSelector", call);
  }
  return {};
}

}  // namespace

Result<Call> call_of(std::string path, std::string_view query) {
  if (!is_utf8(path)) return fail(ErrorKind::kInvalid, "the path is not UTF-8");
  Call call;
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  call.path = path;
  if (path == "/healthz" || path == "/livez" || path == "/readyz") {
    call.kind = Call::Kind::kHealth;
    return call;
  }
  const auto parts = path.starts_with('/') ? parts_of(path) : std::vector<std::string_view>();
  if (parts.empty() || parts[0] != "apis") return call;
  if (parts.size() == 1) {
    call.kind = Call::Kind::kGroups;
    return call;
  }
  const auto group = std::ranges::find(kServedGroups, parts[1], &Group::name);
  if (group == kServedGroups.end()) return call;
  call.group = *group;
  if (parts.size() == 2) {
    call.kind = Call::Kind::kGroup;
  } else if (parts[2] == group->version && parts.size() == 3) {
    call.kind = Call::Kind::kResources;
  } else if (parts[2] == group->version && parts[3] == "namespaces") {
    if (Status read = read_numbers(std::span(parts).subspan(4), query, call); !read) {
      return std::unexpected(read.error());
    }
  }
  return call;
}

std::string Call::only_model() const {
  if (kind == Kind::kObject) return model;
  for (const Requirement& one : selector) {
    const bool named = one.key == api::kMetricModelLabel && one.op == Requirement::Op::kIn;
    if (named && one.values.size() == 1) return one.values.front();
  }
  return {};
}

}  // namespace dsm::metrics_api
