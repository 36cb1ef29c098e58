// Who asks, found out as Kubernetes' own servers do, in this order:
//   1. The front proxy: the API server hands requests on over a connection with a client
//      certificate of its own and says in headers for whom. Headers of anybody else say nothing.
//   2. A client certificate by the cluster's authority of clients: its common name is the user, its
//      organizations are the groups.
//   3. A bearer token. Whose it is only the API server knows: tokens.h.
// Which authorities and headers count is published in ConfigMap
// kube-system/extension-apiserver-authentication. Who shows nothing of this is nobody. Pure.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <variant>
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
struct Trust {
  ProxyTrust proxy;
  // PEM; client-ca-file. Empty: the API server takes no client certificates, and neither do we.
  std::string client_authorities = {};

  bool operator==(const Trust&) const = default;
};
// kInvalid: the ConfigMap does not say what is needed (aggregation is not set up in the cluster).
Result<Trust> trust_of(const nlohmann::json& config_map);

struct User {
  std::string name;
  std::string uid;
  std::vector<std::string> groups;
  std::map<std::string, std::vector<std::string>> extra;
};
// Everyone who is somebody is in the group system:authenticated, whether it was said or not: the
// API server's own requests for discovery come without groups.
User with_everyones_group(User user);

struct BearerToken {
  std::string text;
};
// Longer than any that an API server or an identity provider gives out.
inline constexpr std::size_t kLongestToken = 16 << 10;

// kDenied with a sentence: the request shows neither a certificate that counts nor a token.
Result<std::variant<User, BearerToken>> identify(const Trust& trust, const http::Request& request,
                                                 WallTime now);

}  // namespace dsm::metrics_api
