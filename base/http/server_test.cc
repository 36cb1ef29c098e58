// The server over real loopback sockets, with clients that behave in all the ways clients do.
#include "base/http/server.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "base/http/test_socket.h"

namespace dsm::http {
namespace {

// A place where a handler leaves the exchanges that the test answers.
class Inbox {
 public:
  void put(std::shared_ptr<Exchange> exchange) {
    std::lock_guard lock(mutex_);
    exchanges_.push_back(std::move(exchange));
    changed_.notify_all();
  }
  std::shared_ptr<Exchange> get() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !exchanges_.empty(); });
    auto first = std::move(exchanges_.front());
    exchanges_.erase(exchanges_.begin());
    return first;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::shared_ptr<Exchange>> exchanges_;
};

// Something that happens once, on another thread.
class Event {
 public:
  void set() {
    std::lock_guard lock(mutex_);
    set_ = true;
    changed_.notify_all();
  }
  bool wait() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(20), [&] { return set_; });
  }
  bool is_set() {
    std::lock_guard lock(mutex_);
    return set_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool set_ = false;
};

class HttpServer : public ::testing::Test {
 protected:
  void start(ServerOptions options = {}) {
    options.host = "127.0.0.1";
    server = std::make_unique<Server>(options, Logger());
    server->route("GET", "/hello", [](const Request&) {
      return Response{.status = 200, .content_type = "text/plain", .body = "hello", .headers = {}};
    });
    server->route("POST", "/echo", [](const Request& request) {
      return Response{
          .status = 200,
          .content_type = "text/plain",
          .body = request.body + "|" + request.query + "|" + std::string(request.header("x-a")),
          .headers = {}};
    });
    server->route("GET", "/throws",
                  [](const Request&) -> Response { throw std::runtime_error("a bug"); });
    server->route_async("GET", "/later",
                        [this](std::shared_ptr<Exchange> e) { inbox.put(std::move(e)); });
    server->route_async("GET", "/dropped", [](std::shared_ptr<Exchange>) {});
    ASSERT_TRUE(server->start().has_value());
  }
  TestSocket connect(int receive_buffer = 0) { return TestSocket(server->port(), receive_buffer); }

  // Stops the server, which waits for connections that are busy: true when it had let go of all of
  // them, since no answer comes any more.
  bool all_gone() {
    const auto begin = std::chrono::steady_clock::now();
    server->stop(/*grace_s=*/20);
    return std::chrono::steady_clock::now() - begin < std::chrono::seconds(15);
  }

  Inbox inbox;  // outlives the server, whose handlers use it
  std::unique_ptr<Server> server;
};

std::string status_of(const std::string& answer) {
  return answer.substr(0, answer.find("\r\n"));
}
std::string body_of(const std::string& answer) {
  const auto at = answer.find("\r\n\r\n");
  return at == std::string::npos ? "" : answer.substr(at + 4);
}

const std::string kHello = "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n";
const std::string kLater = "GET /later HTTP/1.1\r\nHost: x\r\n\r\n";

TEST_F(HttpServer, answers_several_requests_on_one_connection) {
  start();
  auto client = connect();
  for (int i = 0; i < 3; ++i) {
    client.send(kHello);
    const std::string answer = client.read_response();
    EXPECT_EQ(status_of(answer), "HTTP/1.1 200 OK");
    EXPECT_EQ(body_of(answer), "hello");
    EXPECT_EQ(answer.find("Connection: close"), std::string::npos);
  }
}

TEST_F(HttpServer, reads_a_request_that_comes_byte_by_byte) {
  start();
  auto client = connect();
  for (const char c :
       "\r\nPOST /echo?q=1 HTTP/1.1\r\nHost: x\r\nX-A: b\r\nContent-Length: 4\r\n\r\nbody"
       "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
       "3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\n\r\n" +
           std::string()) {
    ASSERT_TRUE(client.send(std::string(1, c)));
  }
  EXPECT_EQ(body_of(client.read_response()), "body|q=1|b");
  EXPECT_EQ(body_of(client.read_response()), "abcde||");
}

TEST_F(HttpServer, answers_pipelined_requests_in_order) {
  start();
  auto client = connect();
  client.send(kLater + kHello + "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n");
  inbox.get()->respond(
      {.status = 200, .content_type = "text/plain", .body = "first", .headers = {}});
  EXPECT_EQ(body_of(client.read_response()), "first");
  EXPECT_EQ(body_of(client.read_response()), "hello");
  EXPECT_EQ(status_of(client.read_response()), "HTTP/1.1 404 Not Found");
}

TEST_F(HttpServer, says_404_and_405_with_the_body_that_was_asked_for) {
  start();
  server->error_body([](int status, const std::string& message) {
    return Response{.status = status, .body = "{" + message + "}", .headers = {}};
  });
  auto client = connect();
  client.send("GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n");
  std::string answer = client.read_response();
  EXPECT_EQ(status_of(answer), "HTTP/1.1 404 Not Found");
  EXPECT_EQ(body_of(answer), "{no such path: /nothing}");
  client.send("POST /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
  answer = client.read_response();
  EXPECT_EQ(status_of(answer), "HTTP/1.1 405 Method Not Allowed");
  EXPECT_NE(answer.find("Allow: GET\r\n"), std::string::npos);
}

TEST_F(HttpServer, answers_head_without_a_body) {
  start();
  auto client = connect();
  client.send("HEAD /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  const std::string answer = client.read_to_end();
  EXPECT_NE(answer.find("Content-Length: 5\r\n"), std::string::npos);
  EXPECT_EQ(body_of(answer), "");
}

TEST_F(HttpServer, closes_after_an_http_1_0_request) {
  start();
  auto client = connect();
  client.send("GET /hello HTTP/1.0\r\n\r\n");
  EXPECT_EQ(body_of(client.read_to_end()), "hello");
}

TEST_F(HttpServer, refuses_headers_that_are_too_large) {
  start({.max_header_bytes = 1000});
  auto client = connect();
  client.send("GET /hello HTTP/1.1\r\nHost: x\r\nX-Long: " + std::string(5000, 'a'));
  const std::string answer = client.read_to_end();
  EXPECT_EQ(status_of(answer), "HTTP/1.1 431 Request Header Fields Too Large");
  EXPECT_NE(answer.find("Connection: close"), std::string::npos);
}

TEST_F(HttpServer, refuses_a_body_that_is_too_large_before_it_comes) {
  start({.max_body_bytes = 100});
  auto client = connect();
  client.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 101\r\n\r\n");
  EXPECT_EQ(status_of(client.read_to_end()), "HTTP/1.1 413 Content Too Large");
}

TEST_F(HttpServer, refuses_a_chunked_body_that_grows_too_large_even_while_it_is_sent) {
  start({.max_body_bytes = 100});
  auto client = connect();
  client.send("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
  std::string chunks;
  for (int i = 0; i < 2000; ++i) chunks += "64\r\n" + std::string(100, 'a') + "\r\n";
  client.send(chunks);
  EXPECT_EQ(status_of(client.read_to_end()), "HTTP/1.1 413 Content Too Large");
}

TEST_F(HttpServer, holds_only_so_many_bytes_of_all_requests_together) {
  start({.max_body_bytes = 1 << 20, .max_total_body_bytes = 300'000});
  const std::string large = "Content-Length: 200000\r\n\r\n" + std::string(200'000, 'a');
  auto first = connect();
  first.send("GET /later HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + large);
  const auto held = inbox.get();

  auto second = connect();
  second.send("POST /echo HTTP/1.1\r\nHost: x\r\n" + large);
  const std::string refusal = second.read_to_end();
  EXPECT_EQ(status_of(refusal), "HTTP/1.1 503 Service Unavailable");
  EXPECT_NE(refusal.find("Retry-After: 1\r\n"), std::string::npos);

  // Small ones are let in all the same.
  auto small = connect();
  small.send("POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi");
  EXPECT_EQ(status_of(small.read_to_end()), "HTTP/1.1 200 OK");

  // Once the first has its answer there is room again.
  held->respond({});
  EXPECT_EQ(status_of(first.read_to_end()), "HTTP/1.1 200 OK");
  auto third = connect();
  third.send("POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + large);
  EXPECT_EQ(status_of(third.read_to_end()), "HTTP/1.1 200 OK");
}

TEST_F(HttpServer, asks_for_the_body_of_a_request_that_expects_it) {
  start();
  auto client = connect();
  client.send(
      "POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
  EXPECT_EQ(client.read_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  client.send("ok");
  EXPECT_EQ(body_of(client.read_response()), "ok||");
}

class HttpServerMalformed : public HttpServer, public ::testing::WithParamInterface<const char*> {};

TEST_P(HttpServerMalformed, is_answered_400_and_closed) {
  start();
  auto client = connect();
  client.send(GetParam());
  EXPECT_EQ(status_of(client.read_to_end()), "HTTP/1.1 400 Bad Request");
}

INSTANTIATE_TEST_SUITE_P(
    Requests, HttpServerMalformed,
    ::testing::Values(
        "nonsense\r\n\r\n", "GET /hello HTTP/9.9\r\n\r\n", "GET  HTTP/1.1\r\n\r\n",
        "GET /hello HTTP/1.1\r\nNo colon\r\n\r\n",
        "POST /echo HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        "POST /echo HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        // Two ways to tell the length: a proxy may have believed the other one.
        "POST /echo HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
        "0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n",
        "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        "fffffffffffffffff\r\nabc\r\n"));

TEST_F(HttpServer, refuses_a_chunk_header_without_an_end) {
  start({.max_header_bytes = 1000});
  auto client = connect();
  client.send("POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;" +
              std::string(100'000, 'a'));
  EXPECT_EQ(status_of(client.read_to_end()), "HTTP/1.1 400 Bad Request");
}

TEST_F(HttpServer, says_408_when_a_request_does_not_arrive_in_time) {
  start({.read_timeout_s = 1});
  auto client = connect();
  client.send("GET /hello HTTP/1.1\r\nHos");
  EXPECT_EQ(status_of(client.read_to_end()), "HTTP/1.1 408 Request Timeout");
}

TEST_F(HttpServer, closes_an_idle_connection) {
  start({.idle_timeout_s = 1});
  auto client = connect();
  client.send(kHello);
  client.read_response();
  EXPECT_TRUE(client.at_end());
  EXPECT_TRUE(all_gone());
}

TEST_F(HttpServer, streams_chunks_as_they_are_written) {
  start();
  auto client = connect();
  client.send(kLater);
  const auto exchange = inbox.get();
  exchange->start(200, {{"Content-Type", "text/event-stream"}});
  exchange->write("one");
  EXPECT_NE(client.read_until("3\r\none\r\n").find("Transfer-Encoding: chunked"),
            std::string::npos);
  exchange->write("two!");
  EXPECT_EQ(client.read_until("!\r\n"), "4\r\ntwo!\r\n");
  exchange->finish();
  EXPECT_EQ(client.read_until("0\r\n\r\n"), "0\r\n\r\n");
  client.send(kHello);  // the connection lives on
  EXPECT_EQ(body_of(client.read_response()), "hello");
}

TEST_F(HttpServer, streams_to_an_http_1_0_client_until_the_end_of_the_connection) {
  start();
  auto client = connect();
  client.send("GET /later HTTP/1.0\r\n\r\n");
  const auto exchange = inbox.get();
  exchange->start(200, {});
  exchange->write("one");
  exchange->write("two");
  exchange->finish();
  const std::string answer = client.read_to_end();
  EXPECT_EQ(body_of(answer), "onetwo");
  EXPECT_EQ(answer.find("chunked"), std::string::npos);
}

TEST_F(HttpServer, a_client_that_closes_while_it_waits_is_noticed) {
  start();
  auto client = connect();
  client.send(kLater);
  const auto exchange = inbox.get();
  Event closed;
  exchange->on_close([&] { closed.set(); });
  client.close();
  EXPECT_TRUE(closed.wait());
  EXPECT_TRUE(exchange->closed());
  exchange->respond({});  // does nothing
  EXPECT_TRUE(all_gone());
}

TEST_F(HttpServer, a_client_that_closes_only_its_sending_half_while_it_waits_is_gone) {
  start();
  auto client = connect();
  client.send(kLater);
  const auto exchange = inbox.get();
  Event closed;
  exchange->on_close([&] { closed.set(); });
  client.shutdown_sending();
  EXPECT_TRUE(closed.wait());
}

TEST_F(HttpServer, a_client_that_sends_its_half_ahead_gets_the_answers_that_are_ready) {
  start();
  auto client = connect();
  client.send(kHello + kHello);
  client.shutdown_sending();
  EXPECT_EQ(body_of(client.read_response()), "hello");
  EXPECT_EQ(body_of(client.read_response()), "hello");
  EXPECT_TRUE(client.at_end());
}

TEST_F(HttpServer, a_client_that_vanishes_in_mid_stream_is_noticed_without_a_write) {
  start();
  auto client = connect();
  client.send(kLater);
  const auto exchange = inbox.get();
  Event closed;
  exchange->on_close([&] { closed.set(); });
  exchange->start(200, {});
  exchange->write("one");
  client.read_until("one\r\n");
  client.close();
  EXPECT_TRUE(closed.wait());
  EXPECT_TRUE(all_gone());
}

TEST_F(HttpServer, a_client_that_reads_nothing_is_dropped_after_the_write_timeout) {
  start({.write_timeout_s = 1});
  auto client = connect(/*receive_buffer=*/4096);
  client.send(kLater);
  const auto exchange = inbox.get();
  Event closed;
  exchange->on_close([&] { closed.set(); });
  exchange->start(200, {});
  for (int i = 0; i < 32; ++i) exchange->write(std::string(1 << 20, 'a'));
  EXPECT_GT(exchange->buffered_bytes(), std::size_t{1} << 20);
  EXPECT_TRUE(closed.wait());
  EXPECT_TRUE(all_gone());
}

TEST_F(HttpServer, a_stream_that_is_aborted_ends_while_its_client_still_reads_nothing) {
  start();
  auto client = connect(/*receive_buffer=*/4096);
  client.send(kLater);
  const auto exchange = inbox.get();
  exchange->start(200, {});
  for (int i = 0; i < 32; ++i) exchange->write(std::string(1 << 20, 'a'));
  EXPECT_GT(exchange->buffered_bytes(), std::size_t{1} << 20);
  exchange->abort();
  EXPECT_TRUE(all_gone());
  EXPECT_TRUE(exchange->closed());
  EXPECT_EQ(client.read_to_end().find("\r\n0\r\n\r\n"), std::string::npos);
}

TEST_F(HttpServer, a_large_answer_reaches_a_client_that_reads_slowly) {
  start();
  auto client = connect(/*receive_buffer=*/4096);
  client.send(kLater);
  const auto exchange = inbox.get();
  const std::string body(3 << 20, 'b');
  exchange->respond({.status = 200, .content_type = "text/plain", .body = body, .headers = {}});
  EXPECT_EQ(body_of(client.read_response()).size(), body.size());
}

TEST_F(HttpServer, a_handler_that_drops_its_exchange_makes_a_500) {
  start();
  auto client = connect();
  client.send("GET /dropped HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(status_of(client.read_response()), "HTTP/1.1 500 Internal Server Error");
  client.send("GET /throws HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(status_of(client.read_response()), "HTTP/1.1 500 Internal Server Error");
}

TEST_F(HttpServer, a_stream_that_is_dropped_ends_without_its_last_chunk) {
  start();
  auto client = connect();
  client.send(kLater);
  auto exchange = inbox.get();
  exchange->start(200, {});
  exchange->write("one");
  exchange.reset();
  const std::string answer = client.read_to_end();
  EXPECT_NE(answer.find("3\r\none\r\n"), std::string::npos);
  EXPECT_EQ(answer.find("0\r\n\r\n"), std::string::npos);
}

TEST_F(HttpServer, a_draining_server_answers_and_closes) {
  start();
  auto client = connect();
  client.send(kHello);
  EXPECT_EQ(client.read_response().find("Connection: close"), std::string::npos);
  server->close_connections_after_answer(true);
  client.send(kHello);
  EXPECT_NE(client.read_to_end().find("Connection: close"), std::string::npos);
}

TEST_F(HttpServer, stopping_lets_an_answer_be_finished_within_the_grace) {
  start();
  auto idle = connect();
  idle.send(kHello);
  idle.read_response();
  auto busy = connect();
  busy.send(kLater);
  const auto exchange = inbox.get();
  std::thread stopper([&] { server->stop(/*grace_s=*/20); });
  EXPECT_TRUE(idle.at_end());
  exchange->respond({.status = 200, .content_type = "text/plain", .body = "done", .headers = {}});
  EXPECT_EQ(body_of(busy.read_to_end()), "done");
  stopper.join();
}

TEST_F(HttpServer, stopping_without_grace_tells_the_producers) {
  start();
  auto client = connect();
  client.send(kLater);
  const auto exchange = inbox.get();
  Event closed;
  exchange->on_close([&] { closed.set(); });
  server->stop();
  EXPECT_TRUE(closed.is_set());
  EXPECT_TRUE(client.at_end());
  server.reset();
  exchange->start(200, {});  // outlives the server and does nothing
  exchange->write("x");
}

TEST_F(HttpServer, closes_connections_beyond_the_limit) {
  start({.max_connections = 1});
  auto first = connect();
  first.send(kHello);
  first.read_response();
  auto second = connect();
  EXPECT_TRUE(second.at_end());
  first.send(kHello);
  EXPECT_EQ(body_of(first.read_response()), "hello");
}

TEST_F(HttpServer, keeps_many_connections_open_at_once) {
  start();
  std::vector<TestSocket> clients;
  for (int i = 0; i < 300; ++i) clients.push_back(connect());
  for (int round = 0; round < 2; ++round) {
    for (auto& client : clients) ASSERT_TRUE(client.send(kHello));
    for (auto& client : clients) ASSERT_EQ(body_of(client.read_response()), "hello");
  }
  EXPECT_EQ(server->connections(), 300u);
  clients.clear();
  EXPECT_TRUE(all_gone());
}

TEST_F(HttpServer, many_threads_of_producers_and_clients_that_leave_do_not_disturb_each_other) {
  start();
  std::vector<std::thread> producers;
  std::vector<std::thread> clients;
  for (int i = 0; i < 16; ++i) {
    producers.emplace_back([this] {
      const auto exchange = inbox.get();
      Event closed;
      exchange->on_close([&] { closed.set(); });
      exchange->start(200, {});
      for (int k = 0; k < 200 && !exchange->closed(); ++k)
        exchange->write("piece " + std::to_string(k));
      if (exchange->closed()) {
        EXPECT_TRUE(closed.wait());
      } else {
        exchange->finish();
        // Either side may win; the callback must not run on a dead Event.
        while (!exchange->closed()) std::this_thread::yield();
      }
    });
    clients.emplace_back([this, i] {
      auto client = connect();
      client.send(kLater);
      if (i % 2 == 0) {
        EXPECT_NE(client.read_until("0\r\n\r\n").find("piece 199"), std::string::npos);
      } else {
        client.read_until("piece 1");
      }
    });
  }
  for (auto& thread : clients) thread.join();
  for (auto& thread : producers) thread.join();
  EXPECT_TRUE(all_gone());
}

TEST_F(HttpServer, lives_on_after_requests_that_were_changed_at_random) {
  start({.max_body_bytes = 1000, .max_header_bytes = 1000, .read_timeout_s = 1});
  std::mt19937 random(11);
  const std::string good =
      "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" +
      kHello;
  for (int i = 0; i < 300; ++i) {
    std::string bytes = good;
    for (auto changes = 1 + random() % 6; changes > 0; --changes) {
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    auto client = connect();
    client.send(bytes.substr(0, random() % bytes.size()));
    client.shutdown_sending();
    client.read_to_end();
  }
  auto client = connect();
  client.send(kHello);
  EXPECT_EQ(body_of(client.read_response()), "hello");
}

TEST(HttpServerStart, names_the_address_when_it_is_taken) {
  Server first({.host = "127.0.0.1"}, Logger());
  ASSERT_TRUE(first.start().has_value());
  Server second({.host = "127.0.0.1", .port = first.port()}, Logger());
  const auto started = second.start();
  ASSERT_FALSE(started.has_value());
  EXPECT_EQ(started.error().kind, ErrorKind::kTransient);
  EXPECT_NE(started.error().message.find(std::to_string(first.port())), std::string::npos);
}

}  // namespace
}  // namespace dsm::http
