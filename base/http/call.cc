#include "base/http/call.h"

#include <array>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <utility>

namespace dsm::http {
namespace {

constexpr std::size_t kReadBytes = 16 << 10;  // of one read
constexpr std::size_t kMaxHeaderBytes = 64 << 10;

std::string request_bytes(const std::string& method, const Target& target,
                          const std::string& body) {
  const bool v6 = target.host.find(':') != std::string::npos;
  std::string text = method + " " + (target.path.empty() ? "/" : target.path) + " HTTP/1.1\r\n";
  text += "Host: " + (v6 ? "[" + target.host + "]" : target.host) + ":" +
          std::to_string(target.port) + "\r\nConnection: close\r\n";
  for (const auto& [name, value] : target.headers) text += name + ": " + value + "\r\n";
  if (!body.empty() || method != "GET") {
    text += "Content-Length: " + std::to_string(body.size()) + "\r\n";
  }
  return text + "\r\n" + body;
}

std::string why(const error_code& ec) {
  if (ec == bhttp::error::body_limit) return "the answer is too large";
  const bool malformed =
      ec.category() == bhttp::make_error_code(bhttp::error::need_more).category();
  return (malformed ? "malformed answer: " : "the connection was lost: ") + ec.message();
}

}  // namespace

Call::Call(net::io_context& context, Target target, Timeouts timeouts,
           std::unique_ptr<Receiver> receiver)
    : target_(std::move(target)),
      timeouts_(timeouts),
      socket_(context.get_executor()),
      timer_(context.get_executor()),
      receiver_(std::move(receiver)) {
  parser_.eager(true);
  parser_.header_limit(kMaxHeaderBytes);
  parser_.body_limit(boost::none);
  parser_.get().body() = [this](std::string_view bytes) { return sink(bytes); };
}

void Call::start(const std::string& method, const std::string& body) {
  request_ = request_bytes(method, target_, body);
  target_.headers.clear();
  net::co_spawn(socket_.get_executor(), begin(shared_from_this()), net::detached);
}

void Call::silence() {
  std::lock_guard lock(mutex_);
  silent_ = true;
}

void Call::abort() {
  error_code ignored;
  socket_.close(ignored);
  if (resolver_) resolver_->cancel();
  timer_.cancel();
}

void Call::finish(Result<Response> head) {
  timer_.cancel();
  std::lock_guard lock(mutex_);
  if (silent_) return;
  silent_ = true;
  receiver_->end(std::move(head));
}

void Call::fail_call(const std::string& what) {
  finish(fail(ErrorKind::kTransient,
              target_.host + ":" + std::to_string(target_.port) + target_.path + ": " + what));
  abort();
}

// Ends the request when nothing has come for so long. Whatever comes only moves last_: the timer
// looks at that when it fires, which is much rarer.
void Call::arm(int seconds) {
  if (seconds <= 0) return;
  timer_.expires_at(last_ + Seconds(seconds));
  timer_.async_wait([weak = weak_from_this(), seconds](error_code ec) {
    const auto self = weak.lock();
    if (ec || !self) return;
    if (self->last_ + Seconds(seconds) > std::chrono::steady_clock::now()) {
      return self->arm(seconds);
    }
    self->fail_call("no answer within " + std::to_string(seconds) + " seconds");
  });
}

net::awaitable<void> Call::begin(std::shared_ptr<Call> self) {
  (void)self;  // keeps this alive
  arm(timeouts_.total_s > 0 ? timeouts_.total_s : timeouts_.idle_s);
  try {
    if (!co_await connect()) co_return;
    co_await send();
    wait_for_bytes();
  } catch (const std::exception& problem) {
    fail_call(problem.what());
  }
}

// False: it has failed, and that is told.
net::awaitable<bool> Call::connect() {
  error_code ec;
  resolver_ = std::make_unique<Resolver>(socket_.get_executor());
  const auto found = co_await resolver_->async_resolve(target_.host, std::to_string(target_.port),
                                                       net::redirect_error(net::use_awaitable, ec));
  resolver_.reset();
  if (ec) {
    fail_call("cannot resolve the name: " + ec.message());
    co_return false;
  }
  ec = net::error::host_not_found;
  for (const auto& entry : found) {
    error_code ignored;
    socket_.close(ignored);
    co_await socket_.async_connect(entry.endpoint(), net::redirect_error(net::use_awaitable, ec));
    if (!ec || ec == net::error::operation_aborted) break;
  }
  if (ec) {
    fail_call("cannot connect: " + ec.message());
    co_return false;
  }
  error_code ignored;
  socket_.set_option(tcp::no_delay(true), ignored);
  // A peer that vanishes without a word is noticed even where there is no time-out.
  socket_.set_option(net::socket_base::keep_alive(true), ignored);
  // Reads do not wait for bytes: they come after wait_read.
  socket_.non_blocking(true, ec);
  if (ec) fail_call("cannot use the connection: " + ec.message());
  co_return !ec;
}

net::awaitable<void> Call::send() {
  error_code ec;
  co_await net::async_write(socket_, net::buffer(request_),
                            net::redirect_error(net::use_awaitable, ec));
  request_ = std::string();  // its room, too
  // A peer may answer and close before it has read everything: the answer counts.
}

void Call::wait_for_bytes() {
  socket_.async_wait(Socket::wait_read,
                     [self = shared_from_this()](error_code ec) { self->on_bytes(ec); });
}

void Call::on_bytes(error_code ec) {
  try {
    if (!ec) ec = read_some();
    if (ec == net::error::eof && parser_.got_some()) {
      parser_.put_eof(ec);
      if (ec) return fail_call("the answer broke off");
    }
    if (ec) return fail_call(why(ec));
    if (parser_.is_done()) return complete();
    wait_for_bytes();
  } catch (const std::exception& problem) {
    fail_call(problem.what());
  }
}

// Feeds the parser with what has come.
error_code Call::read_some() {
  std::array<char, kReadBytes> room;
  error_code ec;
  const std::size_t n = socket_.read_some(net::buffer(room), ec);
  if (ec == net::error::would_block) return {};
  if (ec) return ec;
  if (timeouts_.total_s == 0) last_ = std::chrono::steady_clock::now();
  std::string_view input(room.data(), n);
  std::string joined;
  if (!rest_.empty()) {
    joined = std::exchange(rest_, std::string()).append(input);
    input = joined;
  }
  while (!input.empty() && !parser_.is_done()) {
    const std::size_t used = parser_.put(net::buffer(input), ec);
    input.remove_prefix(used);
    // Interim answers (1xx) are not asked for and count as malformed when one comes.
    if (ec || used == 0) break;
  }
  if (ec == bhttp::error::need_more && input.size() <= kMaxHeaderBytes) ec = {};
  rest_ = input;
  return ec;
}

// The parser's: bytes of the body, after the head.
bool Call::sink(std::string_view bytes) {
  std::lock_guard lock(mutex_);
  if (silent_) return false;
  if (!std::exchange(told_, true)) {
    receiver_->want_body(static_cast<int>(parser_.get().result_int()));
  }
  return receiver_->data(bytes);
}

void Call::complete() {
  Response head;
  head.status = static_cast<int>(parser_.get().result_int());
  for (const auto& field : parser_.get()) {
    head.headers[std::string(field.name_string())] =
        std::string(field.value().data(), field.value().size());
  }
  const auto type = head.headers.find("content-type");
  head.content_type = type == head.headers.end() ? "" : type->second;
  {
    std::lock_guard lock(mutex_);
    if (!std::exchange(told_, true) && !silent_) receiver_->want_body(head.status);
  }
  finish(std::move(head));
  abort();
}

}  // namespace dsm::http
