// Who asks. The API server hands requests on over a connection with its own client certificate (the
// front proxy's) and says in headers for whom; it publishes which certificates and headers count in
// ConfigMap kube-system/extension-apiserver-authentication. Nobody else is listened to: whoever
// wants the numbers asks the API server. Pure.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/http/message.h"
#include "base/result.h"

namespace dsm::metrics_api {

inline constexpr std::string_view kTrustNamespace = "kube-system";
inline constexpr std::string_view kTrustName = "extension-apiserver-authentication";

struct ProxyTrust {
  std::string authorities;                 // PEM; requestheader-client-ca-file
  std::vector<std::string> allowed_names;  // common names; empty: any
  std::vector<std::string> user_headers;
  std::vector<std::string> uid_headers;
  std::vector<std::string> group_headers;
  std::vector<std::string> extra_prefixes;

  bool operator==(const ProxyTrust&) const = default;
};
// kInvalid: the ConfigMap does not say what is needed (aggregation is not set up in the cluster).
Result<ProxyTrust> proxy_trust(const nlohmann::json& config_map);

struct User {
  std::string name;
  std::string uid;
  std::vector<std::string> groups;
  std::map<std::string, std::vector<std::string>> extra;
};
// kDenied with a sentence: it did not come from the front proxy, or says no user.
Result<User> identify(const ProxyTrust& trust, const http::Request& request, WallTime now);

}  // namespace dsm::metrics_api
