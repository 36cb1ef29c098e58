#include "kube/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/random.h"

namespace dsm::kube {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

// A folder that is removed with the test.
class TempDir {
 public:
  TempDir() : path_(fs::temp_directory_path() / ("kube-config-" + random_hex(8))) {
    fs::create_directories(path_);
  }
  ~TempDir() { fs::remove_all(path_); }
  std::string path() const { return path_.string(); }
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(path_ / name) << text;
  }

 private:
  fs::path path_;
};

std::string kubeconfig(const std::string& cluster, const std::string& user) {
  return "apiVersion: v1\nkind: Config\ncurrent-context: main\n"
         "contexts:\n- name: main\n  context: {cluster: c, user: u, namespace: team-a}\n"
         "- name: other\n  context: {cluster: missing, user: u}\n"
         "clusters:\n- name: c\n  cluster: " +
         cluster + "\nusers:\n- name: u\n  user: " + user + "\n";
}

TEST(Kubeconfig, ReadsTheCurrentContext) {
  const auto config = parse_kubeconfig(
      kubeconfig("{server: 'https://10.0.0.1:6443/', certificate-authority-data: Q0E=}",
                 "{client-certificate-data: Q0VSVA==, client-key-data: S0VZ}"),
      "/");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->server, "https://10.0.0.1:6443");
  EXPECT_EQ(config->ns, "team-a");
  EXPECT_EQ(config->ca_pem, "CA");
  EXPECT_EQ(config->client_cert_pem, "CERT");
  EXPECT_EQ(config->client_key_pem, "KEY");
  EXPECT_FALSE(config->insecure);
}

TEST(Kubeconfig, RelativeFilesAreNextToTheKubeconfig) {
  TempDir dir;
  dir.write("ca.pem", "CA");
  dir.write("c.pem", "CERT");
  dir.write("k.pem", "KEY");
  dir.write("config", kubeconfig("{server: 'https://x', certificate-authority: ca.pem}",
                                 "{client-certificate: c.pem, client-key: k.pem, tokenFile: tok}"));
  const auto config = kubeconfig_file(dir.path() + "/config");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->ca_file, dir.path() + "/ca.pem");
  EXPECT_EQ(config->client_cert_pem, "CERT");
  EXPECT_EQ(config->token_file, dir.path() + "/tok");
}

TEST(Kubeconfig, TokensAndInsecureAreRead) {
  const auto config = parse_kubeconfig(
      kubeconfig("{server: 'https://x', insecure-skip-tls-verify: true}", "{token: secret}"), "/");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_TRUE(config->insecure);
  EXPECT_EQ(config->token, "secret");
}

struct Refused {
  const char* name;
  std::string text;
  std::string context;
  const char* says;
};

class RefusedKubeconfig : public ::testing::TestWithParam<Refused> {};

TEST_P(RefusedKubeconfig, SaysWhatIsWrong) {
  const auto config = parse_kubeconfig(GetParam().text, "/", GetParam().context);
  ASSERT_FALSE(config);
  EXPECT_NE(config.error().kind, ErrorKind::kTransient);
  EXPECT_THAT(config.error().message, HasSubstr(GetParam().says));
}

INSTANTIATE_TEST_SUITE_P(
    All, RefusedKubeconfig,
    ::testing::Values(
        Refused{"NotYaml", "a: [", "", "kubeconfig:"}, Refused{"NotAMapping", "- 1", "", "mapping"},
        Refused{"NoContext", "a: 1", "", "current-context"},
        Refused{"UnknownContext", kubeconfig("{server: 'https://x'}", "{}"), "nope",
                "no context \"nope\""},
        Refused{"UnknownCluster", kubeconfig("{server: 'https://x'}", "{}"), "other",
                "no cluster \"missing\""},
        Refused{"NoServer", kubeconfig("{a: b}", "{}"), "", "no server"},
        Refused{"Exec", kubeconfig("{server: 'https://x'}", "{exec: {command: aws}}"), "", "exec"},
        Refused{"Password", kubeconfig("{server: 'https://x'}", "{username: a, password: b}"), "",
                "password"},
        Refused{"HalfACertificate",
                kubeconfig("{server: 'https://x'}", "{client-certificate-data: Q0VSVA==}"), "",
                "only work together"},
        Refused{"BadBase64",
                kubeconfig("{server: 'https://x', certificate-authority-data: '%%%%'}", "{}"), "",
                "certificate-authority-data"},
        Refused{"NoCaFile",
                kubeconfig("{server: 'https://x', certificate-authority: /nonexistent/ca}", "{}"),
                "", "/nonexistent/ca"},
        Refused{"Proxy", kubeconfig("{server: 'https://x', proxy-url: 'http://p'}", "{}"), "",
                "proxy-url"}),
    [](const auto& kase) { return kase.param.name; });

TEST(Kubeconfig, AMissingFileIsNamed) {
  const auto config = kubeconfig_file("/nonexistent/kubeconfig");
  ASSERT_FALSE(config);
  EXPECT_THAT(config.error().message, HasSubstr("/nonexistent/kubeconfig"));
}

TEST(InClusterConfig, ReadsTheMountedFiles) {
  TempDir dir;
  dir.write("token", "t");
  dir.write("ca.crt", "CA");
  dir.write("namespace", "dsm-system\n");
  const auto config = in_cluster_config("10.96.0.1", "443", dir.path());
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->server, "https://10.96.0.1:443");
  EXPECT_EQ(config->ns, "dsm-system");
  EXPECT_EQ(config->token_file, dir.path() + "/token");
  EXPECT_EQ(config->ca_file, dir.path() + "/ca.crt");
}

TEST(InClusterConfig, AnIpv6AddressBecomesTheServicesName) {
  TempDir dir;
  dir.write("token", "t");
  dir.write("ca.crt", "CA");
  const auto config = in_cluster_config("fd00::1", "443", dir.path());
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->server, "https://kubernetes.default.svc:443");
  EXPECT_EQ(config->ns, "default");
}

TEST(InClusterConfig, SaysWhenItIsNotInACluster) {
  const auto outside = in_cluster_config("", "", "/nonexistent");
  ASSERT_FALSE(outside);
  EXPECT_THAT(outside.error().message, HasSubstr("--kubeconfig"));
  const auto no_token = in_cluster_config("10.96.0.1", "443", "/nonexistent");
  ASSERT_FALSE(no_token);
  EXPECT_THAT(no_token.error().message, HasSubstr("/nonexistent/token"));
}

TEST(Base64, DecodesWithPaddingAndLineBreaks) {
  EXPECT_EQ(base64_decode("YQ==").value(), "a");
  EXPECT_EQ(base64_decode("YWI=").value(), "ab");
  EXPECT_EQ(base64_decode("YW\nJj").value(), "abc");
  EXPECT_EQ(base64_decode("").value(), "");
  for (const char* text : {"", "a", "ab", "abc", "abcd"}) {
    EXPECT_EQ(base64_decode(base64_encode(text)).value(), text);
  }
  EXPECT_FALSE(base64_decode("abc"));
  EXPECT_FALSE(base64_decode("a$bc"));
}

}  // namespace
}  // namespace dsm::kube
