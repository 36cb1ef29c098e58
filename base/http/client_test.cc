// The client over real loopback sockets, against peers that answer well, badly and not at all.
#include "base/http/client.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <optional>
#include <vector>

#include "base/http/server.h"
#include "base/http/test_socket.h"

namespace dsm::http {
namespace {

// What the callbacks of one request were told.
class Told {
 public:
  void line(std::string_view text) {
    std::lock_guard lock(mutex_);
    lines_.emplace_back(text);
    changed_.notify_all();
  }
  void end(Status status) {
    std::lock_guard lock(mutex_);
    end_ = std::move(status);
    changed_.notify_all();
  }
  void answer(Result<Response> response) {
    std::lock_guard lock(mutex_);
    answer_ = std::move(response);
    changed_.notify_all();
  }
  std::vector<std::string> wait_lines(std::size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kPatience, [&] { return lines_.size() >= count; });
    return lines_;
  }
  Status wait_end() {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kPatience, [&] { return end_.has_value(); });
    if (!end_) return fail(ErrorKind::kInternal, "the end was not told");
    return *end_;
  }
  Result<Response> wait_answer() {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kPatience, [&] { return answer_.has_value(); });
    if (!answer_) return fail(ErrorKind::kInternal, "no answer was told");
    return *answer_;
  }
  bool ended() {
    std::lock_guard lock(mutex_);
    return end_.has_value();
  }

 private:
  static constexpr std::chrono::seconds kPatience{20};
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> lines_;
  std::optional<Status> end_;
  std::optional<Result<Response>> answer_;
};

class HttpClient : public ::testing::Test {
 protected:
  Target target(const std::string& path = "/") {
    return {.host = "127.0.0.1", .port = listener.port(), .path = path, .headers = {{"X-A", "b"}}};
  }
  std::unique_ptr<Client::Handle> lines(int idle_timeout_s = 0) {
    return client.get_lines(
        target("/lines"), idle_timeout_s, [this](std::string_view line) { told.line(line); },
        [this](Status status) { told.end(std::move(status)); });
  }
  std::unique_ptr<Client::Handle> send(const std::string& body, int timeout_s = 20) {
    return client.send("POST", target("/post"), body, timeout_s,
                       [this](Result<Response> answer) { told.answer(std::move(answer)); });
  }
  using Lines = std::vector<std::string>;

  TestListener listener;
  Told told;
  Client client;
};

TEST_F(HttpClient, reads_lines_as_they_come_however_they_are_cut) {
  const auto handle = lines();
  auto peer = listener.accept();
  const std::string request = peer.read_until("\r\n\r\n");
  EXPECT_TRUE(request.starts_with("GET /lines HTTP/1.1\r\n"));
  EXPECT_NE(request.find("X-A: b\r\n"), std::string::npos);
  EXPECT_NE(request.find("Host: 127.0.0.1:"), std::string::npos);
  peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
  peer.send("3\r\none\r\n1\r\n\n\r\n");
  EXPECT_EQ(told.wait_lines(1), Lines({"one"}));
  peer.send("9\r\ntwo\r\nthre\r\n");
  EXPECT_EQ(told.wait_lines(2), Lines({"one", "two"}));
  peer.send("1\r\ne\r\n0\r\n\r\n");
  EXPECT_TRUE(told.wait_end().has_value());
  EXPECT_EQ(told.wait_lines(3), Lines({"one", "two", "three"}));
}

TEST_F(HttpClient, who_gathers_reads_the_same_and_can_be_ended) {
  const auto gathering = std::make_unique<Client>(Millis(5));
  const auto handle = gathering->get_lines(
      target("/lines"), 0, [this](std::string_view line) { told.line(line); },
      [this](Status status) { told.end(std::move(status)); });
  auto peer = listener.accept();
  peer.read_until("\r\n\r\n");
  peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\none\n\r\n");
  EXPECT_EQ(told.wait_lines(1), Lines({"one"}));
  peer.send("4\r\ntwo\n\r\n");
  EXPECT_EQ(told.wait_lines(2), Lines({"one", "two"}));
  EXPECT_FALSE(told.ended());
}

TEST_F(HttpClient, a_stream_that_breaks_off_is_transient) {
  const auto handle = lines();
  auto peer = listener.accept();
  peer.read_until("\r\n\r\n");
  peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\none\n\r\n");
  told.wait_lines(1);
  peer.close();
  const Status end = told.wait_end();
  ASSERT_FALSE(end.has_value());
  EXPECT_EQ(end.error().kind, ErrorKind::kTransient);
}

TEST_F(HttpClient, a_stream_that_falls_silent_is_given_up) {
  const auto handle = lines(/*idle_timeout_s=*/1);
  auto peer = listener.accept();
  peer.read_until("\r\n\r\n");
  peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\none\n\r\n");
  const Status end = told.wait_end();
  ASSERT_FALSE(end.has_value());
  EXPECT_EQ(end.error().kind, ErrorKind::kTransient);
  EXPECT_NE(end.error().message.find("within 1 seconds"), std::string::npos);
  EXPECT_TRUE(peer.at_end());
}

TEST_F(HttpClient, a_refused_stream_tells_the_status_and_no_lines) {
  const auto handle = lines();
  auto peer = listener.accept();
  peer.read_until("\r\n\r\n");
  peer.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 4\r\n\r\nno!\n");
  const Status end = told.wait_end();
  ASSERT_FALSE(end.has_value());
  EXPECT_EQ(end.error().kind, ErrorKind::kDenied);
  EXPECT_EQ(told.wait_lines(0), Lines());
}

TEST_F(HttpClient, nothing_is_told_after_the_handle_is_gone) {
  auto handle = lines();
  auto peer = listener.accept();
  peer.read_until("\r\n\r\n");
  peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\none\n\r\n");
  told.wait_lines(1);
  handle.reset();
  EXPECT_TRUE(peer.at_end());  // and the connection is closed
  EXPECT_FALSE(told.ended());
}

TEST_F(HttpClient, a_handle_may_be_destroyed_in_its_own_callback) {
  std::mutex mutex;
  std::condition_variable changed;
  std::unique_ptr<Client::Handle> handle;
  bool destroyed = false;
  {
    std::lock_guard lock(mutex);
    handle = client.get_lines(
        target(), 0, [](std::string_view) {},
        [&](Status) {
          std::lock_guard inner(mutex);
          handle.reset();
          destroyed = true;
          changed.notify_all();
        });
  }
  listener.accept().close();
  std::unique_lock lock(mutex);
  EXPECT_TRUE(changed.wait_for(lock, std::chrono::seconds(20), [&] { return destroyed; }));
}

TEST_F(HttpClient, sends_a_body_and_gets_the_whole_answer) {
  const auto handle = send("data");
  auto peer = listener.accept();
  EXPECT_NE(peer.read_until("\r\n\r\ndata").find("Content-Length: 4\r\n"), std::string::npos);
  peer.send(
      "HTTP/1.1 409 Conflict\r\nContent-Type: text/plain\r\nX-B: c\r\nContent-Length: "
      "3\r\n\r\nyes");
  const auto answer = told.wait_answer();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->status, 409);
  EXPECT_EQ(answer->body, "yes");
  EXPECT_EQ(answer->content_type, "text/plain");
  EXPECT_EQ(answer->headers.at("x-b"), "c");
}

TEST_F(HttpClient, an_answer_without_a_length_ends_with_the_connection) {
  const auto handle = send("");
  auto peer = listener.accept();
  peer.read_until("\r\n\r\n");
  peer.send("HTTP/1.0 200 OK\r\n\r\nabc");
  peer.close();
  const auto answer = told.wait_answer();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->body, "abc");
}

TEST_F(HttpClient, an_answer_that_is_too_large_or_malformed_is_refused) {
  for (const std::string& head : {std::string("HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n"),
                                  std::string("nonsense\r\n\r\n")}) {
    Told mine;
    const auto handle = client.send("GET", target(), "", 20,
                                    [&](Result<Response> a) { mine.answer(std::move(a)); });
    auto peer = listener.accept();
    peer.read_until("\r\n\r\n");
    peer.send(head + std::string(2'000'000, 'a'));
    const auto answer = mine.wait_answer();
    ASSERT_FALSE(answer.has_value());
    EXPECT_EQ(answer.error().kind, ErrorKind::kTransient);
  }
}

TEST_F(HttpClient, a_peer_that_does_not_answer_in_time_is_transient) {
  const auto handle = send("", /*timeout_s=*/1);
  auto peer = listener.accept();
  const auto answer = told.wait_answer();
  ASSERT_FALSE(answer.has_value());
  EXPECT_EQ(answer.error().kind, ErrorKind::kTransient);
}

TEST_F(HttpClient, a_port_where_nobody_listens_is_transient) {
  std::uint16_t port = 0;
  {
    const TestListener gone;
    port = gone.port();
  }
  const auto handle =
      client.send("GET", {.host = "127.0.0.1", .port = port, .path = "/", .headers = {}}, "", 20,
                  [this](Result<Response> answer) { told.answer(std::move(answer)); });
  const auto answer = told.wait_answer();
  ASSERT_FALSE(answer.has_value());
  EXPECT_EQ(answer.error().kind, ErrorKind::kTransient);
}

TEST_F(HttpClient, many_requests_at_once_meet_our_own_server) {
  Server server({.host = "127.0.0.1"}, Logger());
  server.route("POST", "/echo", [](const Request& request) {
    return Response{.status = 200, .content_type = "", .body = request.body, .headers = {}};
  });
  ASSERT_TRUE(server.start().has_value());
  Client many;
  std::vector<Told> all(100);
  std::vector<std::unique_ptr<Client::Handle>> handles;
  handles.reserve(all.size());
  for (std::size_t i = 0; i < all.size(); ++i) {
    handles.push_back(many.send(
        "POST", {.host = "localhost", .port = server.port(), .path = "/echo", .headers = {}},
        "body " + std::to_string(i), 20,
        [&all, i](Result<Response> answer) { all[i].answer(std::move(answer)); }));
  }
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto answer = all[i].wait_answer();
    ASSERT_TRUE(answer.has_value()) << answer.error().message;
    EXPECT_EQ(answer->body, "body " + std::to_string(i));
  }
}

TEST(HttpClientLifetime, a_client_ends_its_requests_and_handles_may_outlive_it) {
  TestListener listener;
  std::unique_ptr<Client::Handle> handle;
  bool told = false;
  auto client = std::make_unique<Client>();
  handle = client->get_lines(
      {.host = "127.0.0.1", .port = listener.port(), .path = "/", .headers = {}}, 0,
      [](std::string_view) {}, [&](Status) { told = true; });
  auto peer = listener.accept();  // stays connected: its end would be told
  peer.read_until("\r\n\r\n");
  client.reset();
  handle.reset();
  EXPECT_FALSE(told);
}

}  // namespace
}  // namespace dsm::http
