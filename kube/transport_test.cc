// The real transport against a hand-written server on loopback that says exactly these bytes.
#include "kube/transport.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <mutex>
#include <thread>

#include "base/random.h"
#include "kube/config.h"

namespace dsm::kube {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

// One accepted connection.
class Peer {
 public:
  explicit Peer(int fd) : fd_(fd) {}
  ~Peer() { ::close(fd_); }
  // Head and body of the next request; "" when the client closed.
  std::string read_request() {
    std::string text;
    char buffer[4096];
    for (;;) {
      const auto head = text.find("\r\n\r\n");
      if (head != std::string::npos && text.size() >= head + 4 + content_length(text)) return text;
      const ssize_t n = ::read(fd_, buffer, sizeof buffer);
      if (n <= 0) return "";
      text.append(buffer, static_cast<std::size_t>(n));
    }
  }
  void write(const std::string& text) { (void)::send(fd_, text.data(), text.size(), MSG_NOSIGNAL); }
  void chunk(const std::string& text) {
    char size[16];
    std::snprintf(size, sizeof size, "%zx\r\n", text.size());
    write(size + text + "\r\n");
  }
  void answer(const std::string& status, const std::string& body, const std::string& more = "") {
    write("HTTP/1.1 " + status + "\r\n" + more + "Content-Length: " + std::to_string(body.size()) +
          "\r\n\r\n" + body);
  }
  bool client_closed() {
    char c = 0;
    return ::read(fd_, &c, 1) <= 0;
  }
  bool client_closes_within(std::chrono::milliseconds time) {
    pollfd waiting{fd_, POLLIN | POLLRDHUP, 0};
    return ::poll(&waiting, 1, static_cast<int>(time.count())) != 0;
  }

 private:
  static std::size_t content_length(const std::string& text) {
    const auto at = text.find("Content-Length:");
    return at == std::string::npos ? 0 : std::stoul(text.substr(at + 15));
  }
  int fd_;
};

// Runs `serve` once per connection, each on a thread of its own, until destroyed.
class RawServer {
 public:
  explicit RawServer(std::function<void(Peer&, int connection)> serve) {
    listen_ = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ::bind(listen_, reinterpret_cast<sockaddr*>(&address), sizeof address);
    ::listen(listen_, 8);
    socklen_t size = sizeof address;
    ::getsockname(listen_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this, serve = std::move(serve)] {
      for (int connection = 0;; ++connection) {
        const int fd = ::accept(listen_, nullptr, nullptr);
        if (fd < 0) return;
        serving_.emplace_back([serve, fd, connection] {
          Peer peer(fd);
          serve(peer, connection);
        });
      }
    });
  }
  ~RawServer() {
    ::shutdown(listen_, SHUT_RDWR);
    thread_.join();
    for (std::thread& thread : serving_) thread.join();
    ::close(listen_);
  }
  ClientConfig config() const {
    ClientConfig result;
    result.server = "http://127.0.0.1:" + std::to_string(port_);
    return result;
  }

 private:
  int listen_ = -1;
  std::uint16_t port_ = 0;
  std::vector<std::thread> serving_;
  std::thread thread_;
};

std::unique_ptr<Transport> connect(const ClientConfig& config) {
  initialize_transport_threads(3);
  return std::move(make_transport(config).value());
}

HttpRequest get(const std::string& target) {
  HttpRequest request;
  request.target = target;
  return request;
}

TEST(Transport, SendsTheRequestAsWrittenAndReturnsTheWholeAnswer) {
  std::promise<std::string> seen;
  RawServer server([&](Peer& peer, int connection) {
    if (connection == 0) seen.set_value(peer.read_request());
    peer.answer("429 Too Many Requests", "slow", "Retry-After: 7\r\n");
  });
  ClientConfig config = server.config();
  config.token = "secret";
  const auto transport = connect(config);
  HttpRequest request = apply_request(kServices, "ns", "a", R"({"x":"ü"})", "manager/with slash");
  const auto answer = transport->send(request, 5s, {});
  ASSERT_TRUE(answer) << answer.error().message;
  EXPECT_EQ(answer->status, 429);
  EXPECT_EQ(answer->retry_after_s(), 7);
  EXPECT_EQ(answer->body, "slow");
  const std::string text = seen.get_future().get();
  EXPECT_THAT(text, HasSubstr("PATCH /api/v1/namespaces/ns/services/a"
                              "?fieldManager=manager%2Fwith%20slash&force=true HTTP/1.1\r\n"));
  EXPECT_THAT(text, HasSubstr("Authorization:Bearer secret\r\n"));
  EXPECT_THAT(text, HasSubstr("Content-Type:application/apply-patch+yaml\r\n"));
  EXPECT_THAT(text, HasSubstr("\r\n\r\n{\"x\":\"ü\"}"));
}

TEST(Transport, KeepsConnectionsForLaterRequests) {
  std::atomic<int> connections = 0;
  RawServer server([&](Peer& peer, int) {
    ++connections;
    while (!peer.read_request().empty()) peer.answer("200 OK", "{}");
  });
  {
    const auto transport = connect(server.config());
    for (int i = 0; i < 20; ++i) ASSERT_TRUE(transport->send(get("/a"), 5s, {}));
  }
  // An answer arrives a moment before its connection is free again: now and then one more is made.
  EXPECT_LT(connections, 20);
}

TEST(Transport, AConnectionThatTheServerClosedWhileIdleIsReplaced) {
  RawServer server([&](Peer& peer, int) {
    peer.read_request();
    peer.answer("200 OK", "{}");  // promises keep-alive and closes all the same
  });
  const auto transport = connect(server.config());
  for (int i = 0; i < 4; ++i) {
    const auto answer = transport->send(get("/a"), 5s, {});
    ASSERT_TRUE(answer) << i << ": " << answer.error().message;
  }
}

TEST(Transport, ASilentServerMeetsTheDeadline) {
  RawServer server([&](Peer& peer, int) {
    peer.read_request();
    peer.client_closed();  // returns when the client gives up
  });
  const auto transport = connect(server.config());
  HttpRequest request = get("/a");
  request.idempotent = false;
  const auto begin = std::chrono::steady_clock::now();
  const auto answer = transport->send(request, 100ms, {});
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().kind, ErrorKind::kTransient);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 5s);
}

TEST(Transport, ADripOfBytesDoesNotStretchTheDeadline) {
  RawServer server([&](Peer& peer, int) {
    peer.read_request();
    peer.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    // A byte every few milliseconds keeps the connection alive until the client closes it.
    while (!peer.client_closes_within(2ms)) peer.chunk("x");
  });
  const auto transport = connect(server.config());
  const auto answer = transport->send(get("/a"), 200ms, {});
  ASSERT_FALSE(answer);
  EXPECT_THAT(answer.error().message, HasSubstr("no answer in time"));
}

TEST(Transport, NobodyListeningIsTransient) {
  ClientConfig config;
  {
    RawServer server([](Peer&, int) {});
    config = server.config();
  }
  const auto answer = connect(config)->send(get("/a"), 5s, {});
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().kind, ErrorKind::kTransient);
  EXPECT_THAT(answer.error().message, HasSubstr("127.0.0.1"));
}

TEST(Transport, StreamHandsBytesOverAsTheyCome) {
  std::promise<void> first_seen;
  RawServer server([&](Peer& peer, int) {
    peer.read_request();
    peer.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    peer.chunk("one\n");
    first_seen.get_future().wait();  // the second line is sent only when the first has arrived
    peer.chunk("two\n");
    peer.chunk("");
  });
  const auto transport = connect(server.config());
  std::string all;
  bool told = false;
  const auto answer = transport->stream(get("/watch"), 5s,
                                        [&](std::string_view bytes) {
                                          all += bytes;
                                          if (!told && all == "one\n") {
                                            told = true;
                                            first_seen.set_value();
                                          }
                                        },
                                        {});
  ASSERT_TRUE(answer) << answer.error().message;
  EXPECT_EQ(answer->status, 200);
  EXPECT_EQ(all, "one\ntwo\n");
}

TEST(Transport, AStreamThatBreaksIsTransientAfterItsBytes) {
  RawServer server([&](Peer& peer, int) {
    peer.read_request();
    peer.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    peer.chunk("one\n");
  });
  const auto transport = connect(server.config());
  std::string all;
  const auto answer =
      transport->stream(get("/watch"), 5s, [&](std::string_view bytes) { all += bytes; }, {});
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().kind, ErrorKind::kTransient);
  EXPECT_EQ(all, "one\n");
}

TEST(Transport, ASilentStreamEndsAfterItsIdleTime) {
  RawServer server([&](Peer& peer, int) {
    peer.read_request();
    peer.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    peer.client_closed();
  });
  const auto transport = connect(server.config());
  const auto answer = transport->stream(get("/watch"), 200ms, [](std::string_view) {}, {});
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().kind, ErrorKind::kTransient);
}

TEST(Transport, ARefusedStreamReturnsTheAnswer) {
  RawServer server([&](Peer& peer, int) {
    peer.read_request();
    peer.answer("410 Gone", R"({"kind":"Status"})");
  });
  const auto answer =
      connect(server.config())->stream(get("/watch"), 5s, [](std::string_view) {}, {});
  ASSERT_TRUE(answer) << answer.error().message;
  EXPECT_EQ(answer->status, 410);
  EXPECT_EQ(answer->body, R"({"kind":"Status"})");
}

TEST(Transport, AStopEndsAQuietStreamAtOnce) {
  std::stop_source stop;
  RawServer server([&](Peer& peer, int) {
    peer.read_request();
    peer.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    stop.request_stop();
    peer.client_closed();
  });
  const auto transport = connect(server.config());
  const auto begin = std::chrono::steady_clock::now();
  const auto answer =
      transport->stream(get("/watch"), 60s, [](std::string_view) {}, stop.get_token());
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().kind, ErrorKind::kCancelled);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 10s);
}

TEST(Transport, ARotatedTokenIsReadAfterA401) {
  std::mutex mutex;
  std::vector<std::string> requests;  // of all connections: the second may come on one of its own
  RawServer server([&](Peer& peer, int) {
    for (;;) {
      const std::string request = peer.read_request();
      if (request.empty()) return;
      {
        std::lock_guard lock(mutex);
        requests.push_back(request);
      }
      peer.answer("200 OK", "{}");
    }
  });
  const auto file = std::filesystem::temp_directory_path() / ("token-" + random_hex(8));
  std::ofstream(file) << "old\n";
  ClientConfig config = server.config();
  config.token_file = file.string();
  {
    const auto transport = connect(config);
    ASSERT_TRUE(transport->send(get("/a"), 5s, {}));
    std::ofstream(file) << "new\n";
    transport->refresh_credentials();
    ASSERT_TRUE(transport->send(get("/a"), 5s, {}));
  }
  std::filesystem::remove(file);
  std::lock_guard lock(mutex);
  EXPECT_THAT(requests, ElementsAre(HasSubstr("Authorization:Bearer old\r\n"),
                                    HasSubstr("Authorization:Bearer new\r\n")));
}

TEST(Transport, ABrokenCertificateAuthorityIsRefusedAtOnce) {
  ClientConfig config;
  config.server = "https://127.0.0.1:1";
  config.ca_pem = "nonsense";
  const auto transport = make_transport(config);
  ASSERT_FALSE(transport);
  EXPECT_EQ(transport.error().kind, ErrorKind::kInvalid);
  EXPECT_THAT(transport.error().message, HasSubstr("certificate"));
}

TEST(Transport, AnAddressWithoutSchemeIsRefused) {
  ClientConfig config;
  config.server = "10.0.0.1:6443";
  EXPECT_FALSE(make_transport(config));
}

}  // namespace
}  // namespace dsm::kube
