// The whole metrics API over TLS beside a scripted API server, and a client of it. Tests only.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "base/certificate.h"
#include "base/http/test_tls.h"
#include "kube/testing/scripted_transport.h"
#include "operator/metrics_api/server.h"

namespace dsm::metrics_api {

inline constexpr const char* kQueue =
    "/apis/external.metrics.k8s.io/v1beta1/namespaces/ns/dsm_queue_depth?labelSelector=model%3Dr1";
inline constexpr const char* kObject =
    "/apis/custom.metrics.k8s.io/v1beta2/namespaces/ns/deepseekmodels.deepseek-operator.io/r1/"
    "dsm_queue_depth";
inline constexpr const char* kJane = "X-Remote-User: jane\r\nX-Remote-Group: team\r\n";
inline const WallTime kFrom = SystemClock().wall_now() - std::chrono::hours(1);
inline const WallTime kUntil = kFrom + std::chrono::hours(24);

class ServerFixture : public testing::Test {
 protected:
  ServerFixture() {
    const KeyPair own =
        make_leaf(
            authority,
            {.common_name = "m.ns.svc", .dns_names = {"m.ns.svc"}, .from = kFrom, .until = kUntil})
            .value();
    EXPECT_TRUE(tls->use(own.certificate, own.key));
    trust = std::make_shared<Trust>(
        Trust{{authority.certificate, {"proxy"}, {"X-Remote-User"}, {}, {"X-Remote-Group"}, {}},
              clients.certificate});
    plan::ModelLoad load;
    load.model = "r1";
    load.queue_depth = 7;
    view = {true, {load}};
    EXPECT_TRUE(server.start());
  }
  ~ServerFixture() override { server.stop(); }

  KeyPair client(const std::string& name) const {
    return make_leaf(authority, {.common_name = name,
                                 .use = LeafRequest::Use::kClient,
                                 .from = kFrom,
                                 .until = kUntil})
        .value();
  }
  // `as` "": without a certificate.
  std::string get(const std::string& path, const std::string& headers,
                  const std::string& as = "proxy") {
    return as.empty() ? get_with(path, headers, std::nullopt) : get_with(path, headers, client(as));
  }
  std::string get_with(const std::string& path, const std::string& headers,
                       const std::optional<KeyPair>& own) {
    http::TestTlsClient caller(server.port(), authority.certificate, "m.ns.svc",
                               own ? &*own : nullptr);
    EXPECT_TRUE(caller.connected());
    return caller.get(path, headers);
  }
  void the_api_server_allows(bool yes) {
    transport.next(kube::testing::json_answer(201, {{"status", {{"allowed", yes}}}}));
  }

  // Of the server and of the front proxy.
  const KeyPair authority = make_authority("ours", kFrom, kUntil).value();
  const KeyPair clients = make_authority("clients", kFrom, kUntil).value();
  SystemClock clock;
  kube::testing::ScriptedTransport transport;
  kube::Client kube{transport, clock, {}};
  Tokens tokens{kube};
  Access access{kube};
  std::shared_ptr<http::Tls> tls = std::make_shared<http::Tls>();
  std::shared_ptr<const Trust> trust;
  std::atomic<bool> known = true;
  View view;
  std::mutex asked_mutex;
  std::string asked_of;  // the model of the last question; "": of any
  MetricsRegistry registry;
  MetricsServer server{{.host = "127.0.0.1", .threads = 1, .tls = tls},
                       tokens,
                       access,
                       clock,
                       [this] { return known ? trust : nullptr; },
                       [this](const std::string& ns, const std::string& model) {
                         const std::lock_guard lock(asked_mutex);
                         asked_of = model;
                         return ns == "ns" ? view : View{true, {}};
                       },
                       registry,
                       Logger()};
};

}  // namespace dsm::metrics_api
