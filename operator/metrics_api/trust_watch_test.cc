#include "operator/metrics_api/trust_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "kube/testing/scripted_transport.h"

namespace dsm::metrics_api {
namespace {

using kube::Json;
using kube::testing::json_answer;
using kube::testing::ScriptedTransport;
using testing::HasSubstr;

constexpr const char* kPath = "/api/v1/namespaces/kube-system/configmaps";

Json config_map(const char* version, const Json& data) {
  return {
      {"kind", "ConfigMap"},
      {"apiVersion", "v1"},
      {"metadata", {{"name", "extension-apiserver-authentication"}, {"resourceVersion", version}}},
      {"data", data}};
}
Json publishes(const char* version, const char* proxies, const char* clients) {
  return config_map(version,
                    {{"requestheader-client-ca-file", proxies}, {"client-ca-file", clients}});
}

class TrustWatchTest : public testing::Test {
 protected:
  void start(const Json& items) {
    transport.next(json_answer(200, {{"kind", "ConfigMapList"},
                                     {"apiVersion", "v1"},
                                     {"metadata", {{"resourceVersion", "10"}}},
                                     {"items", items}}));
    watch.start();
    transport.await_streams(kPath, 1);
  }
  void changes(const Json& object) {
    transport.feed(kPath, Json{{"type", "MODIFIED"}, {"object", object}}.dump() + "\n");
  }
  void await_proxies(const std::string& authorities) {
    for (;;) {
      const auto trust = watch.trust();
      if (trust && trust->proxy.authorities == authorities) return;
      std::this_thread::yield();
    }
  }

  ScriptedTransport transport;
  ManualClock clock;
  kube::Client client{transport, clock, {}};
  TrustWatch watch{client, Logger()};
};

TEST_F(TrustWatchTest, takes_up_a_new_authority_when_it_is_published) {
  EXPECT_FALSE(watch.trust());
  start(Json::array({publishes("9", "proxies-1", "clients-1")}));
  EXPECT_EQ(watch.trust()->proxy.authorities, "proxies-1");
  EXPECT_EQ(watch.trust()->client_authorities, "clients-1");
  EXPECT_THAT(transport.requests()[0].target,
              HasSubstr("fieldSelector=metadata.name%3Dextension-apiserver-authentication"));
  changes(publishes("11", "proxies-2", "clients-2"));
  await_proxies("proxies-2");
  EXPECT_EQ(watch.trust()->client_authorities, "clients-2");
}

TEST_F(TrustWatchTest, keeps_what_was_published_last_when_it_cannot_be_read_any_more) {
  start(Json::array({publishes("9", "proxies-1", "clients-1")}));
  changes(config_map("11", {{"client-ca-file", "clients-2"}}));
  transport.feed(kPath, Json{{"type", "DELETED"}, {"object", config_map("12", {})}}.dump() + "\n");
  transport.end_streams(kPath, json_answer(200, Json::object()));
  transport.await_streams(kPath, 2);  // so all of the first has been read
  ASSERT_TRUE(watch.trust());
  EXPECT_EQ(watch.trust()->proxy.authorities, "proxies-1");
  EXPECT_EQ(watch.trust()->client_authorities, "clients-1");
}

TEST_F(TrustWatchTest, knows_nothing_while_nothing_is_published) {
  start(Json::array());
  EXPECT_FALSE(watch.trust());
}

}  // namespace
}  // namespace dsm::metrics_api
