#include "operator/metrics_api/identity.h"

#include <algorithm>

#include "base/certificate.h"

namespace dsm::metrics_api {
namespace {

using nlohmann::json;

constexpr std::string_view kAnonymous = "system:anonymous";
constexpr std::string_view kAuthenticated = "system:authenticated";

// A value of the ConfigMap that is itself a JSON list of texts.
std::vector<std::string> list_of(const json& data, const char* key) {
  std::vector<std::string> out;
  const auto text = data.find(key);
  if (text == data.end() || !text->is_string()) return out;
  const json list = json::parse(text->get<std::string>(), nullptr, /*allow_exceptions=*/false);
  if (!list.is_array()) return out;
  for (const json& one : list) {
    if (one.is_string()) out.push_back(one.get<std::string>());
  }
  return out;
}

bool same_name(std::string_view a, std::string_view b) {
  const http::LessNoCase less;
  return !less(a, b) && !less(b, a);
}

// Each line of a header that has one of these names.
std::vector<std::string> values_of(const http::Request& request,
                                   const std::vector<std::string>& names) {
  std::vector<std::string> out;
  for (const std::string& name : names) {
    for (const auto& [header, value] : request.header_lines) {
      if (same_name(header, name) && !value.empty()) out.push_back(value);
    }
    if (!out.empty()) break;  // the first name that is there counts
  }
  return out;
}

std::string lower(std::string text) {
  std::ranges::transform(text, text.begin(), [](unsigned char c) {
    return static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  });
  return text;
}

}  // namespace

Result<ProxyTrust> proxy_trust(const json& config_map) {
  const json data = config_map.value(json::json_pointer("/data"), json::object());
  const auto authorities = data.find("requestheader-client-ca-file");
  if (authorities == data.end() || !authorities->is_string()) {
    return fail(ErrorKind::kInvalid,
                "ConfigMap kube-system/extension-apiserver-authentication has no "
                "requestheader-client-ca-file: the API server runs without --requestheader-client-"
                "ca-file, so it cannot hand requests on");
  }
  ProxyTrust trust;
  trust.authorities = authorities->get<std::string>();
  trust.allowed_names = list_of(data, "requestheader-allowed-names");
  trust.user_headers = list_of(data, "requestheader-username-headers");
  trust.uid_headers = list_of(data, "requestheader-uid-headers");
  trust.group_headers = list_of(data, "requestheader-group-headers");
  trust.extra_prefixes = list_of(data, "requestheader-extra-headers-prefix");
  return trust;
}

Result<User> identify(const ProxyTrust& trust, const http::Request& request, WallTime now) {
  if (auto ok = check_client(request.peer_certificates, trust.authorities, now); !ok) {
    return fail(ErrorKind::kDenied, ok.error().message + "; ask through the API server");
  }
  const auto facts = certificate_facts(request.peer_certificates);
  if (!facts) return std::unexpected(facts.error());
  if (!trust.allowed_names.empty() &&
      std::ranges::find(trust.allowed_names, facts->common_name) == trust.allowed_names.end()) {
    return fail(ErrorKind::kDenied,
                "the client certificate of " + facts->common_name +
                    " is not that of a front proxy; ask through the API server");
  }
  const auto names = values_of(request, trust.user_headers);
  if (names.empty()) return fail(ErrorKind::kDenied, "the front proxy says no user");
  User user;
  user.name = names.front();
  if (const auto uids = values_of(request, trust.uid_headers); !uids.empty())
    user.uid = uids.front();
  user.groups = values_of(request, trust.group_headers);
  // The API server's own requests for discovery come without groups.
  if (user.name != kAnonymous &&
      std::ranges::find(user.groups, kAuthenticated) == user.groups.end()) {
    user.groups.emplace_back(kAuthenticated);
  }
  for (const std::string& prefix : trust.extra_prefixes) {
    for (const auto& [header, value] : request.header_lines) {
      if (header.size() <= prefix.size() || !same_name(header.substr(0, prefix.size()), prefix)) {
        continue;
      }
      const auto key = http::percent_decode(lower(header.substr(prefix.size())));
      if (key) user.extra[*key].push_back(value);
    }
  }
  return user;
}

}  // namespace dsm::metrics_api
