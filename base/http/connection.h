// One connection of a Server. Private to this room.
//
// It lives on a strand with two coroutines. read() waits for bytes all the
// time, so that a client that goes away is seen while its answer is being made; serve() takes
// requests out of the bytes, has them answered and writes the answers. They meet in the members of
// Connection and in two Signals; nothing of it needs a lock. The only doors from other threads are
// Outbox (which posts to the strand) and Server's own mutex.
#pragma once

// Boost 1.74's awaitable.hpp uses std::exchange without including it.
#include <utility>
//
#include <boost/asio/awaitable.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <memory>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/http/outbox.h"
#include "base/http/server_core.h"
#include "base/http/tls_context.h"

namespace dsm::http {

// A condition variable for coroutines of one strand. The waiter loops over its own condition.
class Signal {
 public:
  explicit Signal(const boost::asio::any_io_executor& executor) : timer_(executor) {}

  boost::asio::awaitable<void> wait(TimePoint deadline);
  boost::asio::awaitable<void> wait() { return wait(TimePoint::max()); }
  void notify() { timer_.cancel(); }

 private:
  boost::asio::steady_timer timer_;
};

class BodyShare;  // of the memory for bodies

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  // `tls` empty: plain.
  Connection(ServerCore& server, boost::asio::ip::tcp::socket socket,
             std::shared_ptr<Tls::Context> tls)
      : server_(server),
        stream_(std::move(socket)),
        secret_(tls ? std::make_unique<Secret>(std::move(tls), stream_.socket()) : nullptr),
        input_changed_(stream_.get_executor()),
        output_changed_(stream_.get_executor()),
        room_(stream_.get_executor()) {}

  void run();

  // From any thread: ends when idle; otherwise after the answer, which serve() sees for itself.
  void wake();
  // From any thread: ends now.
  void kill();

 private:
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;
  enum class Parsed { kRequest, kEnd, kError };
  static constexpr std::size_t kReadBytes = 16 << 10;
  // The TLS side of a connection. Its time limits are a timer that closes the connection, because
  // those of tcp_stream would end the read that always waits.
  struct Secret {
    Secret(std::shared_ptr<Tls::Context> c, boost::asio::ip::tcp::socket& socket)
        : context(std::move(c)), stream(socket, context->ssl), limit(socket.get_executor()) {}

    std::shared_ptr<Tls::Context> context;
    boost::asio::ssl::stream<boost::asio::ip::tcp::socket&> stream;
    boost::asio::steady_timer limit;
    std::string input;  // what a read fills: input_ may move while it waits
    std::string peer;   // certificates that the client showed
  };

  boost::asio::awaitable<void> read(std::shared_ptr<Connection> self);
  boost::asio::awaitable<void> shake_hands(boost::system::error_code& ec);
  // Waits for bytes and puts them into input_.
  boost::asio::awaitable<void> read_some(boost::system::error_code& ec);
  boost::asio::awaitable<std::size_t> write_some(std::string_view bytes,
                                                 boost::system::error_code& ec);
  void limit(Seconds time);  // closes the connection unless unlimit() comes first
  void unlimit() { secret_->limit.cancel(); }
  boost::asio::awaitable<void> serve(std::shared_ptr<Connection> self);
  boost::asio::awaitable<void> serve_requests();
  boost::asio::awaitable<bool> wait_for_more(std::size_t than, TimePoint deadline);
  boost::asio::awaitable<Parsed> parse(Parser& parser, BodyShare& share);
  boost::asio::awaitable<void> answer(Request request, bool http11, bool keep_alive);
  boost::asio::awaitable<void> answer_async(const AsyncHandler& handler, Request request,
                                            bool http11);
  boost::asio::awaitable<bool> send_response(Response response, bool head_only);
  boost::asio::awaitable<bool> write(std::string bytes);
  boost::asio::awaitable<void> linger();

  Request request_of(Parser& parser) const;
  Response call(const Handler& handler, const Request& request) const;
  void fail_request(int status, std::string message) { problem_ = {status, std::move(message)}; }
  void notify_all();
  void close();
  std::size_t input_limit() const;

  ServerCore& server_;
  boost::beast::tcp_stream stream_;
  std::unique_ptr<Secret> secret_;  // null: plain
  boost::beast::flat_buffer input_;
  Signal input_changed_;   // more input, or its end
  Signal output_changed_;  // the outbox has something
  Signal room_;            // input was consumed
  bool ended_ = false;     // the client sends nothing any more, or the connection is closed
  bool discard_ = false;   // what comes in is thrown away (lingering)
  bool keep_ = true;       // another request may follow
  std::shared_ptr<Outbox> outbox_;  // of the request being answered by a producer
  std::pair<int, std::string> problem_;
};

}  // namespace dsm::http
