// How to reach the API server: from the files that Kubernetes mounts into a pod, or from a
// kubeconfig file. Plain values; reading them is the only I/O.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace dsm::kube {

struct ClientConfig {
  std::string server;      // "https://10.96.0.1:443"
  std::string ns;          // the pod's or the context's namespace; "default" when none is said
  std::string ca_file;     // PEM; read again for each connection, so that a rotated CA is met
  std::string ca_pem;      // instead of a file
  bool insecure = false;   // do not check the server's certificate
  std::string token;       // bearer token, fixed
  std::string token_file;  // wins over `token`; read again every minute and after a 401
  std::string client_cert_pem;
  std::string client_key_pem;
};

inline constexpr const char* kServiceAccountDir = "/var/run/secrets/kubernetes.io/serviceaccount";

// KUBERNETES_SERVICE_HOST and _PORT as read by main. An IPv6 address becomes the service's DNS
// name.
Result<ClientConfig> in_cluster_config(const std::string& service_host,
                                       const std::string& service_port,
                                       const std::string& dir = kServiceAccountDir);

// `context` "" means the file's current-context. Relative paths are relative to the file.
Result<ClientConfig> kubeconfig_file(const std::string& path, const std::string& context = "");
// The same from text; `dir` is what relative paths are relative to.
Result<ClientConfig> parse_kubeconfig(const std::string& text, const std::string& dir,
                                      const std::string& context = "");

// Standard base64 with padding, in one line.
std::string base64_encode(std::string_view bytes);
// Standard base64 with padding; nothing but kInvalid on other characters.
Result<std::string> base64_decode(std::string_view text);

}  // namespace dsm::kube
