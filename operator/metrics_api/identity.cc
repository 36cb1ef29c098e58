#include "operator/metrics_api/identity.h"

#include <algorithm>
#include <optional>

#include "base/certificate.h"
#include "operator/metrics_api/utf8.h"

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

Result<User> user_of_headers(const ProxyTrust& trust, const http::Request& request) {
  const auto names = values_of(request, trust.user_headers);
  if (names.empty()) return fail(ErrorKind::kDenied, "the front proxy says no user");
  User user;
  user.name = names.front();
  if (const auto uids = values_of(request, trust.uid_headers); !uids.empty())
    user.uid = uids.front();
  user.groups = values_of(request, trust.group_headers);
  for (const std::string& prefix : trust.extra_prefixes) {
    for (const auto& [header, value] : request.header_lines) {
      if (header.size() <= prefix.size() || !same_name(header.substr(0, prefix.size()), prefix)) {
        continue;
      }
      const auto key = http::percent_decode(lower(header.substr(prefix.size())));
      if (key) user.extra[*key].push_back(value);
    }
  }
  if (!is_utf8({user.name, user.uid, user.groups, user.extra})) {
    return fail(ErrorKind::kDenied, "a name that the front proxy says is not UTF-8");
  }
  return user;
}

Result<User> proxied_user(const ProxyTrust& trust, const http::Request& request, WallTime now) {
  if (auto ok = check_client(request.peer_certificates, trust.authorities, now); !ok) {
    return std::unexpected(ok.error());
  }
  const auto facts = certificate_facts(request.peer_certificates);
  if (!facts) return std::unexpected(facts.error());
  if (!trust.allowed_names.empty() &&
      std::ranges::find(trust.allowed_names, facts->common_name) == trust.allowed_names.end()) {
    return fail(ErrorKind::kDenied, "the client certificate of " + facts->common_name +
                                        " is not that of a front proxy");
  }
  return user_of_headers(trust, request);
}

Result<User> certified_user(const std::string& authorities, const http::Request& request,
                            WallTime now) {
  if (authorities.empty()) {
    return fail(ErrorKind::kDenied, "the API server publishes no authority of clients");
  }
  if (auto ok = check_client(request.peer_certificates, authorities, now); !ok) {
    return std::unexpected(ok.error());
  }
  const auto facts = certificate_facts(request.peer_certificates);
  if (!facts) return std::unexpected(facts.error());
  if (facts->common_name.empty()) {
    return fail(ErrorKind::kDenied, "the client's certificate names no user");
  }
  User user;
  user.name = facts->common_name;
  user.groups = facts->organizations;
  return user;
}

// Nothing: none is shown. RFC 6750 2.1, and of its characters any that are visible.
Result<std::optional<BearerToken>> token_of(const http::Request& request) {
  constexpr std::string_view kScheme = "bearer ";
  std::string_view header = request.header("authorization");
  if (!same_name(header.substr(0, kScheme.size()), kScheme)) return std::nullopt;
  header.remove_prefix(kScheme.size());
  if (header.empty()) return std::nullopt;
  if (header.size() > kLongestToken) {
    return fail(ErrorKind::kDenied,
                "the bearer token is longer than " + std::to_string(kLongestToken) + " characters");
  }
  if (!std::ranges::all_of(header, [](char c) { return c > ' ' && c < 0x7f; })) {
    return fail(ErrorKind::kDenied, "the bearer token has characters that no token has");
  }
  return BearerToken{std::string(header)};
}

}  // namespace

Result<Trust> trust_of(const json& config_map) {
  const json data = config_map.value(json::json_pointer("/data"), json::object());
  const auto authorities = data.find("requestheader-client-ca-file");
  if (authorities == data.end() || !authorities->is_string()) {
    return fail(ErrorKind::kInvalid,
                "ConfigMap kube-system/extension-apiserver-authentication has no "
                "requestheader-client-ca-file: the API server runs without --requestheader-client-"
                "ca-file, so it cannot hand requests on");
  }
  Trust trust;
  trust.proxy.authorities = authorities->get<std::string>();
  trust.proxy.allowed_names = list_of(data, "requestheader-allowed-names");
  trust.proxy.user_headers = list_of(data, "requestheader-username-headers");
  trust.proxy.uid_headers = list_of(data, "requestheader-uid-headers");
  trust.proxy.group_headers = list_of(data, "requestheader-group-headers");
  trust.proxy.extra_prefixes = list_of(data, "requestheader-extra-headers-prefix");
  if (const auto clients = data.find("client-ca-file"); clients != data.end()) {
    if (clients->is_string()) trust.client_authorities = clients->get<std::string>();
  }
  return trust;
}

User with_everyones_group(User user) {
  if (user.name != kAnonymous &&
      std::ranges::find(user.groups, kAuthenticated) == user.groups.end()) {
    user.groups.emplace_back(kAuthenticated);
  }
  return user;
}

Result<std::variant<User, BearerToken>> identify(const Trust& trust, const http::Request& request,
                                                 WallTime now) {
  auto proxied = proxied_user(trust.proxy, request, now);
  if (proxied) return with_everyones_group(*std::move(proxied));
  auto certified = certified_user(trust.client_authorities, request, now);
  if (certified) return with_everyones_group(*std::move(certified));
  auto token = token_of(request);
  if (!token) return std::unexpected(token.error());
  if (auto& shown = *token; shown) return *std::move(shown);
  if (request.peer_certificates.empty()) {
    return fail(ErrorKind::kDenied,
                "nobody is named: ask through the API server, or show a client certificate or a "
                "bearer token");
  }
  return fail(ErrorKind::kDenied, "as a front proxy: " + proxied.error().message +
                                      "; as a client: " + certified.error().message);
}

}  // namespace dsm::metrics_api
