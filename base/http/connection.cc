#include "base/http/connection.h"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <optional>
#include <string_view>
#include <variant>

#include "base/http/boost_names.h"
#include "base/http/head.h"

namespace dsm::http {
namespace {

constexpr std::size_t kWriteBytes = 256 << 10;  // one write, so that its time-out means progress
// How long a connection that is closed with input unread waits for the client to stop sending: a
// plain close would reset it, and the client could lose the error that it was sent.
constexpr Seconds kLinger{2};

// Once the handle that a handler got is destroyed, nobody can end the answer any more.
class ExchangeHandle final : public Exchange {
 public:
  ExchangeHandle(Request request, std::shared_ptr<Outbox> outbox,
                 std::weak_ptr<Connection> connection)
      : request_(std::move(request)),
        outbox_(std::move(outbox)),
        connection_(std::move(connection)) {}
  ~ExchangeHandle() override { outbox_->abandon(); }

  const Request& request() const override { return request_; }
  void respond(Response response) override { outbox_->respond(std::move(response)); }
  void start(int status, Headers headers) override { outbox_->start(status, std::move(headers)); }
  void write(std::string chunk) override { outbox_->write(std::move(chunk)); }
  void finish() override { outbox_->finish(); }
  void abort() override {
    if (const auto connection = connection_.lock()) connection->kill();
  }
  void on_close(std::function<void()> callback) override { outbox_->on_close(std::move(callback)); }
  bool closed() const override { return outbox_->closed(); }
  std::size_t buffered_bytes() const override { return outbox_->buffered_bytes(); }

 private:
  const Request request_;
  const std::shared_ptr<Outbox> outbox_;
  const std::weak_ptr<Connection> connection_;
};

}  // namespace

// What one request's body takes of the memory that all bodies of a server may have together.
class BodyShare {
 public:
  explicit BodyShare(ServerCore& core) : core_(core) {}
  ~BodyShare() { core_.body_bytes -= bytes_; }
  BodyShare(const BodyShare&) = delete;
  BodyShare& operator=(const BodyShare&) = delete;

  // The body has grown to this size. False when that is too much; small bodies always fit, so that
  // a few large ones do not shut everybody out.
  bool grow(std::size_t bytes) {
    const std::size_t all = core_.body_bytes += bytes - bytes_;
    bytes_ = bytes;
    return bytes_ <= kSmallBody || all <= core_.options.max_total_body_bytes;
  }

 private:
  static constexpr std::size_t kSmallBody = 64 << 10;
  ServerCore& core_;
  std::size_t bytes_ = 0;
};

net::awaitable<void> Signal::wait(TimePoint deadline) {
  timer_.expires_at(deadline);
  error_code ignored;
  co_await timer_.async_wait(net::redirect_error(net::use_awaitable, ignored));
}

void Connection::run() {
  net::co_spawn(stream_.get_executor(), read(shared_from_this()), net::detached);
  net::co_spawn(stream_.get_executor(), serve(shared_from_this()), net::detached);
}

void Connection::wake() {
  net::post(stream_.get_executor(), [self = shared_from_this()] { self->notify_all(); });
}

void Connection::kill() {
  net::post(stream_.get_executor(), [self = shared_from_this()] { self->close(); });
}

void Connection::notify_all() {
  input_changed_.notify();
  output_changed_.notify();
  room_.notify();
}

void Connection::close() {
  error_code ignored;
  stream_.socket().close(ignored);
  ended_ = true;
  if (outbox_) outbox_->close();
  notify_all();
}

std::size_t Connection::input_limit() const {
  return server_.options.max_header_bytes + kReadBytes;
}

net::awaitable<void> Connection::read(std::shared_ptr<Connection> self) {
  (void)self;  // keeps this alive
  error_code ec;
  if (secret_) co_await shake_hands(ec);
  if (ec) close();
  while (!ended_) {
    // A client may send ahead only so much while it is being answered.
    if (!discard_ && input_.size() >= input_limit()) {
      co_await room_.wait();
      continue;
    }
    co_await read_some(ec);
    if (ec == net::error::would_block || ec == net::error::try_again ||
        ec == net::error::interrupted) {
      continue;
    }
    if (discard_) input_.consume(input_.size());
    if (ec) {
      ended_ = true;
      // Nobody waits for the answer being made.
      if (outbox_ && !outbox_->finished()) close();
    }
    input_changed_.notify();
    output_changed_.notify();
  }
}

net::awaitable<void> Connection::serve(std::shared_ptr<Connection> self) {
  (void)self;
  try {
    co_await serve_requests();
  } catch (const std::exception& problem) {
    server_.log.info("connection failed", {{"error", problem.what()}});
  }
  close();
  server_.remove(this);
}

net::awaitable<void> Connection::serve_requests() {
  while (keep_) {
    input_.shrink_to_fit();
    Parser parser;
    parser.eager(true);
    parser.header_limit(static_cast<std::uint32_t>(server_.options.max_header_bytes));
    parser.body_limit(server_.options.max_body_bytes);
    BodyShare share(server_);
    const Parsed parsed = co_await parse(parser, share);
    if (parsed == Parsed::kEnd) co_return;
    if (parsed == Parsed::kError) {
      keep_ = false;
      parser.get().body() = {};  // lingering needs none of it
      Response refusal = server_.error(problem_.first, problem_.second);
      if (problem_.first == 503) refusal.headers["Retry-After"] = "1";
      co_await send_response(std::move(refusal), false);
      break;
    }
    Request request = request_of(parser);
    const bool http11 = parser.get().version() >= 11;
    const bool keep_alive = parser.keep_alive();
    co_await answer(std::move(request), http11, keep_alive);
    if (server_.stopping) keep_ = false;
  }
  co_await linger();
}

// True when the input has grown beyond `than` bytes; false when it ended or the deadline passed.
net::awaitable<bool> Connection::wait_for_more(std::size_t than, TimePoint deadline) {
  while (input_.size() <= than && !ended_ && std::chrono::steady_clock::now() < deadline) {
    co_await input_changed_.wait(deadline);
  }
  co_return input_.size() > than;
}

net::awaitable<Connection::Parsed> Connection::parse(Parser& parser, BodyShare& share) {
  using std::chrono::steady_clock;
  const TimePoint idle_end = steady_clock::now() + Seconds(server_.options.idle_timeout_s);
  for (;;) {
    // Idle: the only place where a stopping server ends a connection without an answer.
    while (input_.size() == 0) {
      if (ended_ || server_.stopping || steady_clock::now() >= idle_end) co_return Parsed::kEnd;
      co_await input_changed_.wait(idle_end);
    }
    // RFC 9112 2.2: empty lines before a request are skipped.
    const char first = *static_cast<const char*>(input_.data().data());
    if (first != '\r' && first != '\n') break;
    input_.consume(1);
  }
  const TimePoint deadline = steady_clock::now() + Seconds(server_.options.read_timeout_s);
  bool continued = false;
  for (;;) {
    error_code ec;
    const std::size_t used = parser.put(input_.data(), ec);
    input_.consume(used);
    room_.notify();
    if (ec && ec != bhttp::error::need_more) {
      if (ec == bhttp::error::header_limit) {
        fail_request(431, "the request's headers are larger than " +
                              std::to_string(server_.options.max_header_bytes) + " bytes");
      } else if (ec == bhttp::error::body_limit) {
        fail_request(413, "the request's body is larger than " +
                              std::to_string(server_.options.max_body_bytes) + " bytes");
      } else {
        fail_request(400, "malformed HTTP request: " + ec.message());
      }
      co_return Parsed::kError;
    }
    if (!share.grow(parser.get().body().size())) {
      fail_request(503, "the server holds as many large requests as it can: try again later");
      co_return Parsed::kError;
    }
    if (parser.is_done()) co_return Parsed::kRequest;
    if (parser.is_header_done() && !continued) {
      continued = true;
      const bool expects = beast::iequals(parser.get()[bhttp::field::expect], "100-continue");
      if (expects && input_.size() == 0 && !co_await write("HTTP/1.1 100 Continue\r\n\r\n")) {
        co_return Parsed::kEnd;
      }
    }
    if (!ec && input_.size() > 0) continue;  // it made a step and has more to look at
    const std::size_t left = input_.size();
    if (left >= input_limit()) {  // a line (a chunk's header, a trailer) without an end
      fail_request(400, "malformed HTTP request: a line is too long");
      co_return Parsed::kError;
    }
    if (!co_await wait_for_more(left, deadline)) {
      if (ended_) co_return Parsed::kEnd;
      fail_request(408, "the request did not arrive within " +
                            std::to_string(server_.options.read_timeout_s) + " seconds");
      co_return Parsed::kError;
    }
  }
}

Request Connection::request_of(Parser& parser) const {
  auto& message = parser.get();
  Request request;
  request.method = std::string(message.method_string());
  std::string_view target(message.target().data(), message.target().size());
  // The absolute form (RFC 9112 3.2.2) names the same resource.
  if (target.starts_with("http://")) {
    const auto slash = target.find('/', 7);
    target = slash == std::string_view::npos ? "/" : target.substr(slash);
  }
  const auto question = target.find('?');
  if (question != std::string_view::npos) {
    request.query = std::string(target.substr(question + 1));
    target = target.substr(0, question);
  }
  request.path = percent_decode(target).value_or("");  // "" has no route
  for (const auto& field : message) {
    std::string& value = request.headers[std::string(field.name_string())];
    if (!value.empty()) value += ", ";
    value += std::string_view(field.value().data(), field.value().size());
  }
  if (secret_) {
    request.peer_certificates = secret_->peer;
    for (const auto& field : message) {
      request.header_lines.emplace_back(
          std::string(field.name_string()),
          std::string_view(field.value().data(), field.value().size()));
    }
  }
  request.body = std::move(message.body());
  error_code ec;
  const auto remote = stream_.socket().remote_endpoint(ec);
  if (!ec) {
    const std::string address = remote.address().to_string();
    request.remote = (remote.address().is_v6() ? "[" + address + "]" : address) + ":" +
                     std::to_string(remote.port());
  }
  return request;
}

Response Connection::call(const Handler& handler, const Request& request) const {
  try {
    return handler(request);
  } catch (const std::exception& problem) {
    server_.log.info("handler failed", {{"path", request.path}, {"error", problem.what()}});
    return server_.error(500, "internal error");
  }
}

net::awaitable<void> Connection::answer(Request request, bool http11, bool keep_alive) {
  const auto match = server_.router.find(request.method, request.path);
  keep_ = keep_alive;
  if (match.target != nullptr && std::holds_alternative<AsyncHandler>(*match.target)) {
    co_await answer_async(std::get<AsyncHandler>(*match.target), std::move(request), http11);
    co_return;
  }
  const bool head_only = request.method == "HEAD";
  Response response;
  if (match.target != nullptr) {
    response = call(std::get<Handler>(*match.target), request);
  } else if (match.status == 405) {
    response = server_.error(405, request.method + " is not allowed for " + request.path);
    response.headers["Allow"] = match.allow;
  } else {
    response = server_.error(404, "no such path: " + request.path);
  }
  if (!co_await send_response(std::move(response), head_only)) keep_ = false;
}

net::awaitable<bool> Connection::send_response(Response response, bool head_only) {
  if (server_.close_after_answer || server_.stopping) keep_ = false;
  Framing framing{.length = response.body.size(), .close = !keep_};
  if (!response.content_type.empty()) {
    response.headers.try_emplace("Content-Type", response.content_type);
  }
  std::string bytes =
      response_head(response.status, response.headers, framing, std::chrono::system_clock::now());
  if (!head_only) bytes += response.body;
  co_return co_await write(std::move(bytes));
}

net::awaitable<void> Connection::answer_async(const AsyncHandler& handler, Request request,
                                              bool http11) {
  const std::weak_ptr<Connection> weak = weak_from_this();
  auto outbox = std::make_shared<Outbox>([weak, executor = stream_.get_executor()] {
    net::post(executor, [weak] {
      if (const auto self = weak.lock()) self->output_changed_.notify();
    });
  });
  outbox_ = outbox;
  // The client may have gone already: then the producer hears of it when it sets on_close.
  if (ended_) outbox->close();
  try {
    handler(std::make_shared<ExchangeHandle>(std::move(request), outbox, weak));
  } catch (const std::exception& problem) {
    server_.log.info("handler failed", {{"error", problem.what()}});
    outbox->abandon();
  }
  bool chunked = false;
  bool started = false;
  bool alive = true;
  while (alive) {
    Outbox::Taken taken = outbox->take();
    if (taken.empty()) {
      if (outbox->closed()) break;
      co_await output_changed_.wait();
      continue;
    }
    if (taken.response) {
      alive = co_await send_response(std::move(*taken.response), false);
      break;
    }
    if (taken.abandoned && !started && !taken.head) {
      alive = co_await send_response(server_.error(500, "internal error"), false);
      break;
    }
    std::string bytes;
    if (taken.head) {
      started = true;
      chunked = http11;
      if (!http11 || server_.close_after_answer || server_.stopping) keep_ = false;
      const Framing framing{.length = std::nullopt, .chunked = chunked, .close = !keep_};
      bytes = response_head(taken.head->status, taken.head->headers, framing,
                            std::chrono::system_clock::now());
    }
    if (!taken.data.empty()) bytes += chunked ? chunk(taken.data) : taken.data;
    if (taken.finished && chunked) bytes += kLastChunk;
    alive = co_await write(std::move(bytes));
    outbox->sent(taken.data.size());
    if (taken.abandoned) alive = false;  // without its end, which tells the client that it is cut
    if (taken.finished) break;
  }
  if (!alive || outbox->closed()) keep_ = false;
  outbox_.reset();
  outbox->close();
}

net::awaitable<bool> Connection::write(std::string bytes) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    const std::size_t part = std::min(bytes.size() - done, kWriteBytes);
    error_code ec;
    done += co_await write_some(std::string_view(bytes).substr(done, part), ec);
    if (ec) {
      close();
      co_return false;
    }
  }
  co_return true;
}

net::awaitable<void> Connection::linger() {
  error_code ignored;
  stream_.socket().shutdown(tcp::socket::shutdown_send, ignored);
  discard_ = true;
  input_.consume(input_.size());
  room_.notify();
  const TimePoint deadline = std::chrono::steady_clock::now() + kLinger;
  while (!ended_ && !server_.stopping && std::chrono::steady_clock::now() < deadline) {
    co_await input_changed_.wait(deadline);
  }
}

}  // namespace dsm::http
