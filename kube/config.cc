#include "kube/config.h"

#include <openssl/evp.h>
#include <yaml-cpp/yaml.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>

namespace dsm::kube {
namespace {

namespace fs = std::filesystem;

Result<std::string> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return fail(ErrorKind::kNotFound, "cannot read " + path);
  std::ostringstream text;
  text << file.rdbuf();
  return std::move(text).str();
}

std::string trimmed(std::string text) {
  const auto last = text.find_last_not_of(" \t\r\n");
  text.resize(last == std::string::npos ? 0 : last + 1);
  return text;
}

std::string field(const YAML::Node& node, const char* key) {
  if (!node.IsMap()) return "";
  const YAML::Node value = node[key];
  return value.IsDefined() && value.IsScalar() ? value.as<std::string>() : std::string();
}

std::string absolute(const std::string& path, const std::string& dir) {
  return path.empty() || fs::path(path).is_absolute() ? path : (fs::path(dir) / path).string();
}

// The `body_key` of the entry called `name` in the list `list_key`; kInvalid names what is missing.
Result<YAML::Node> named(const YAML::Node& root, const char* list_key, const char* body_key,
                         const std::string& name) {
  const YAML::Node list = root[list_key];
  if (list.IsDefined() && list.IsSequence()) {
    for (const YAML::Node& entry : list) {
      if (field(entry, "name") == name && entry[body_key].IsDefined()) return entry[body_key];
    }
  }
  return fail(ErrorKind::kInvalid,
              std::string("no ") + body_key + " \"" + name + "\" in the kubeconfig");
}

// `<key>-data` (base64) or the file `<key>`; nothing when neither is given.
Result<std::string> data_or_file(const YAML::Node& node, const std::string& key,
                                 const std::string& dir) {
  const std::string data = field(node, (key + "-data").c_str());
  if (!data.empty()) {
    Result<std::string> decoded = base64_decode(data);
    if (!decoded) return wrap(decoded.error(), key + "-data");
    return decoded;
  }
  const std::string path = field(node, key.c_str());
  if (path.empty()) return std::string();
  Result<std::string> read = read_file(absolute(path, dir));
  if (!read) return wrap(read.error(), key);
  return read;
}

Status read_cluster(const YAML::Node& cluster, const std::string& dir, ClientConfig& config) {
  config.server = field(cluster, "server");
  if (config.server.empty()) return fail(ErrorKind::kInvalid, "the cluster has no server");
  while (config.server.ends_with('/')) config.server.pop_back();
  for (const char* unsupported : {"proxy-url", "tls-server-name"}) {
    if (!field(cluster, unsupported).empty()) {
      return fail(ErrorKind::kInvalid,
                  std::string(unsupported) + " in a kubeconfig is not supported");
    }
  }
  config.insecure = field(cluster, "insecure-skip-tls-verify") == "true";
  const std::string ca_data = field(cluster, "certificate-authority-data");
  if (ca_data.empty()) {
    config.ca_file = absolute(field(cluster, "certificate-authority"), dir);
    if (config.ca_file.empty() || fs::exists(config.ca_file)) return {};
    return fail(ErrorKind::kInvalid, "certificate-authority: cannot read " + config.ca_file);
  }
  Result<std::string> pem = base64_decode(ca_data);
  if (!pem) return wrap(pem.error(), "certificate-authority-data");
  config.ca_pem = *pem;
  return {};
}

Status read_user(const YAML::Node& user, const std::string& dir, ClientConfig& config) {
  for (const char* plugin : {"exec", "auth-provider"}) {
    if (user.IsMap() && user[plugin].IsDefined()) {
      return fail(ErrorKind::kInvalid, std::string("credentials by ") + plugin +
                                           " are not supported: give a token, a tokenFile or a "
                                           "client certificate");
    }
  }
  if (!field(user, "username").empty()) {
    return fail(ErrorKind::kInvalid,
                "a username and password are not supported: Kubernetes removed them in 1.19");
  }
  config.token = field(user, "token");
  config.token_file = absolute(field(user, "tokenFile"), dir);
  Result<std::string> cert = data_or_file(user, "client-certificate", dir);
  if (!cert) return std::unexpected(cert.error());
  Result<std::string> key = data_or_file(user, "client-key", dir);
  if (!key) return std::unexpected(key.error());
  if (cert->empty() != key->empty()) {
    return fail(ErrorKind::kInvalid, "client-certificate and client-key only work together");
  }
  config.client_cert_pem = *cert;
  config.client_key_pem = *key;
  return {};
}

Result<ClientConfig> from_yaml(const YAML::Node& root, const std::string& dir,
                               std::string context) {
  if (!root.IsMap()) return fail(ErrorKind::kInvalid, "a kubeconfig is a YAML mapping");
  if (context.empty()) context = field(root, "current-context");
  if (context.empty()) return fail(ErrorKind::kInvalid, "the kubeconfig has no current-context");
  const Result<YAML::Node> chosen = named(root, "contexts", "context", context);
  if (!chosen) return std::unexpected(chosen.error());
  const Result<YAML::Node> cluster = named(root, "clusters", "cluster", field(*chosen, "cluster"));
  if (!cluster) return std::unexpected(cluster.error());

  ClientConfig config;
  config.ns = field(*chosen, "namespace");
  if (config.ns.empty()) config.ns = "default";
  if (Status read = read_cluster(*cluster, dir, config); !read)
    return std::unexpected(read.error());
  const std::string user_name = field(*chosen, "user");
  if (user_name.empty()) return config;  // anonymous
  const Result<YAML::Node> user = named(root, "users", "user", user_name);
  if (!user) return std::unexpected(user.error());
  if (Status read = read_user(*user, dir, config); !read) return std::unexpected(read.error());
  return config;
}

}  // namespace

std::string base64_encode(std::string_view bytes) {
  std::string out(4 * ((bytes.size() + 2) / 3) + 1, '\0');  // and a terminating zero
  const int size = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                                   reinterpret_cast<const unsigned char*>(bytes.data()),
                                   static_cast<int>(bytes.size()));
  out.resize(static_cast<std::size_t>(size));
  return out;
}

Result<std::string> base64_decode(std::string_view text) {
  std::string compact;
  for (const char c : text) {
    if (c != '\n' && c != '\r' && c != ' ') compact += c;
  }
  if (compact.size() % 4 != 0) return fail(ErrorKind::kInvalid, "not base64");
  std::string out(compact.size() / 4 * 3, '\0');
  const int decoded = EVP_DecodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                                      reinterpret_cast<const unsigned char*>(compact.data()),
                                      static_cast<int>(compact.size()));
  if (decoded < 0) return fail(ErrorKind::kInvalid, "not base64");
  std::size_t padding = 0;  // EVP_DecodeBlock writes a zero byte for each '='
  if (compact.ends_with("==")) {
    padding = 2;
  } else if (compact.ends_with('=')) {
    padding = 1;
  }
  out.resize(static_cast<std::size_t>(decoded) - padding);
  return out;
}

Result<ClientConfig> in_cluster_config(const std::string& service_host,
                                       const std::string& service_port, const std::string& dir) {
  if (service_host.empty() || service_port.empty()) {
    return fail(ErrorKind::kInvalid,
                "not in a cluster (KUBERNETES_SERVICE_HOST is not set): give --kubeconfig");
  }
  ClientConfig config;
  const bool ipv6 = service_host.find(':') != std::string::npos;
  config.server =
      "https://" + (ipv6 ? "kubernetes.default.svc" : service_host) + ":" + service_port;
  config.token_file = dir + "/token";
  config.ca_file = dir + "/ca.crt";
  for (const std::string& path : {config.token_file, config.ca_file}) {
    if (Result<std::string> read = read_file(path); !read) {
      return wrap(read.error(), "service account (is automountServiceAccountToken off?)");
    }
  }
  const Result<std::string> ns = read_file(dir + "/namespace");
  config.ns = ns && !trimmed(*ns).empty() ? trimmed(*ns) : "default";
  return config;
}

Result<ClientConfig> parse_kubeconfig(const std::string& text, const std::string& dir,
                                      const std::string& context) {
  try {
    return from_yaml(YAML::Load(text), dir, context);
  } catch (const YAML::Exception& e) {
    return fail(ErrorKind::kInvalid, std::string("kubeconfig: ") + e.what());
  }
}

Result<ClientConfig> kubeconfig_file(const std::string& path, const std::string& context) {
  const Result<std::string> text = read_file(path);
  if (!text) return wrap(text.error(), "kubeconfig");
  Result<ClientConfig> config =
      parse_kubeconfig(*text, fs::path(path).parent_path().string(), context);
  if (!config) return wrap(config.error(), path);
  return config;
}

}  // namespace dsm::kube
