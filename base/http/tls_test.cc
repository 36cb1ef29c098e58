// The server with TLS, over real loopback sockets, with OpenSSL as its client.
#include "base/http/tls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/certificate.h"
#include "base/http/server.h"
#include "base/http/test_socket.h"
#include "base/http/test_tls.h"

namespace dsm::http {
namespace {

using Caller = TestTlsClient;
using testing::HasSubstr;
using testing::Not;

const WallTime kFrom = SystemClock().wall_now() - std::chrono::hours(1);
const WallTime kUntil = kFrom + std::chrono::hours(24);

KeyPair leaf(const KeyPair& by, const std::string& name,
             LeafRequest::Use use = LeafRequest::Use::kServer) {
  return make_leaf(
             by,
             {.common_name = name, .dns_names = {name}, .use = use, .from = kFrom, .until = kUntil})
      .value();
}

class TlsServer : public testing::Test {
 protected:
  void SetUp() override {
    server.route("GET", "/who", [](const Request& request) {
      std::string text = request.peer_certificates + "|";
      for (const auto& [name, value] : request.header_lines) text += name + "=" + value + ";";
      return Response{.status = 200, .content_type = "text/plain", .body = text, .headers = {}};
    });
    server.route("GET", "/long", [](const Request&) {
      return Response{.status = 200,
                      .content_type = "text/plain",
                      .body = std::string(3 << 20, 'x'),
                      .headers = {}};
    });
    ASSERT_TRUE(server.start());
  }

  const KeyPair ours = make_authority("ours", kFrom, kUntil).value();
  std::shared_ptr<Tls> tls = std::make_shared<Tls>();
  Server server{{.host = "127.0.0.1", .threads = 1, .read_timeout_s = 1, .tls = tls}, Logger()};
};

TEST_F(TlsServer, answers_many_requests_on_one_connection) {
  const KeyPair own = leaf(ours, "a.ns.svc");
  ASSERT_TRUE(tls->use(own.certificate, own.key));
  Caller caller(server.port(), ours.certificate, "a.ns.svc");
  ASSERT_TRUE(caller.connected());
  for (int i = 0; i < 3; ++i) EXPECT_THAT(caller.get("/who"), HasSubstr("200 OK"));
  EXPECT_GT(caller.get("/long").size(), 3U << 20);
  EXPECT_THAT(caller.get("/who"), HasSubstr("\r\n\r\n|"));
}

TEST_F(TlsServer, hands_on_what_the_client_shows_and_each_header_line) {
  const KeyPair own = leaf(ours, "a.ns.svc");
  ASSERT_TRUE(tls->use(own.certificate, own.key));
  // The server does not judge: this authority is unknown to it.
  const KeyPair other = make_authority("other", kFrom, kUntil).value();
  const KeyPair shown = leaf(other, "proxy", LeafRequest::Use::kClient);
  Caller caller(server.port(), ours.certificate, "a.ns.svc", &shown);
  ASSERT_TRUE(caller.connected());
  const std::string answer = caller.get("/who", "X-G: a, b\r\nX-G: c\r\n");
  EXPECT_THAT(answer, HasSubstr(shown.certificate));
  EXPECT_THAT(answer, HasSubstr("X-G=a, b;X-G=c;"));
}

TEST_F(TlsServer, a_new_certificate_is_used_by_new_connections) {
  const KeyPair first = leaf(ours, "first.svc");
  ASSERT_TRUE(tls->use(first.certificate, first.key));
  Caller before(server.port(), ours.certificate, "first.svc");
  ASSERT_TRUE(before.connected());
  const KeyPair second = leaf(ours, "second.svc");
  ASSERT_TRUE(tls->use(second.certificate, second.key));
  EXPECT_FALSE(Caller(server.port(), ours.certificate, "first.svc").connected());
  EXPECT_TRUE(Caller(server.port(), ours.certificate, "second.svc").connected());
  EXPECT_THAT(before.get("/who"), HasSubstr("200 OK")) << "what has begun goes on";
}

TEST_F(TlsServer, a_certificate_that_cannot_be_used_leaves_the_other_one) {
  EXPECT_FALSE(tls->ready());
  EXPECT_FALSE(Caller(server.port(), ours.certificate, "a.ns.svc").connected());
  const KeyPair own = leaf(ours, "a.ns.svc");
  ASSERT_TRUE(tls->use(own.certificate, own.key));
  EXPECT_EQ(tls->use("hello", own.key).error().kind, ErrorKind::kInvalid);
  EXPECT_EQ(tls->use(own.certificate, leaf(ours, "b.ns.svc").key).error().kind,
            ErrorKind::kInvalid);
  EXPECT_TRUE(Caller(server.port(), ours.certificate, "a.ns.svc").connected());
}

TEST_F(TlsServer, who_does_not_speak_tls_or_stays_silent_is_dropped) {
  const KeyPair own = leaf(ours, "a.ns.svc");
  ASSERT_TRUE(tls->use(own.certificate, own.key));
  TestSocket plain(server.port());
  plain.send("GET /who HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_THAT(plain.read_to_end(), Not(HasSubstr("200 OK")));
  TestSocket silent(server.port());  // past read_timeout_s
  EXPECT_EQ(silent.read_to_end(), "");
  EXPECT_TRUE(Caller(server.port(), ours.certificate, "a.ns.svc").connected());
}

}  // namespace
}  // namespace dsm::http
