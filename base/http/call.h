// One request of the client under way, from the name of its peer to the end of the answer. Included
// by the client's own files only.
//
// An operator has thousands of them open, one for each leader of a model, that wait for a line
// every two seconds. So the coroutine that connects and sends ends there, what only it needed goes,
// and a request that waits is this object and one small handler; a buffer there is only while bytes
// come.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/http/boost_names.h"
#include "base/http/client.h"
//
#include <boost/asio/awaitable.hpp>
#include <boost/asio/basic_stream_socket.hpp>
#include <boost/asio/basic_waitable_timer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/basic_resolver.hpp>
#include <boost/beast/core/buffers_range.hpp>
#include <boost/beast/http/parser.hpp>

namespace dsm::http {

// What a request does with its answer; called with the mutex of the Call held.
class Receiver {
 public:
  virtual ~Receiver() = default;
  virtual bool want_body(int status) = 0;
  virtual bool data(std::string_view bytes) = 0;  // false: too much
  virtual void end(Result<Response> head) = 0;  // the answer without its body, or why there is none
};

// A Beast body that hands its bytes to a function as they come, instead of keeping them.
struct SinkBody {
  using value_type = std::function<bool(std::string_view)>;  // false: enough, stop

  class reader {  // NOLINT(readability-identifier-naming): Beast asks for it by this name
   public:
    template <bool kIsRequest, class Fields>
    reader(bhttp::header<kIsRequest, Fields>&, value_type& sink) : sink_(sink) {}
    void init(const boost::optional<std::uint64_t>&, error_code& ec) { ec = {}; }
    template <class Buffers>
    std::size_t put(const Buffers& buffers, error_code& ec) {
      ec = {};
      std::size_t total = 0;
      for (const net::const_buffer buffer : beast::buffers_range_ref(buffers)) {
        total += buffer.size();
        if (!sink_({static_cast<const char*>(buffer.data()), buffer.size()})) {
          ec = bhttp::error::body_limit;
          break;
        }
      }
      return total;
    }
    void finish(error_code& ec) { ec = {}; }

   private:
    value_type& sink_;
  };
};

// Lives on the context's one thread; `start` and `silence` may come from others.
class Call : public std::enable_shared_from_this<Call> {
 public:
  struct Timeouts {
    int idle_s = 0;   // restarts with every byte; 0: none
    int total_s = 0;  // 0: none
  };

  Call(net::io_context& context, Target target, Timeouts timeouts,
       std::unique_ptr<Receiver> receiver);

  void start(const std::string& method, const std::string& body);
  // No callback afterwards.
  void silence();
  void abort();

 private:
  // Of the context itself: it has one thread, so nothing needs a strand.
  using Executor = net::io_context::executor_type;
  using Socket = net::basic_stream_socket<tcp, Executor>;
  using Timer = net::basic_waitable_timer<std::chrono::steady_clock,
                                          net::wait_traits<std::chrono::steady_clock>, Executor>;
  using Resolver = net::ip::basic_resolver<tcp, Executor>;

  net::awaitable<void> begin(std::shared_ptr<Call> self);
  net::awaitable<bool> connect();
  net::awaitable<void> send();
  void wait_for_bytes();
  void on_bytes(error_code ec);
  error_code read_some();
  bool sink(std::string_view bytes);
  void complete();
  void arm(int seconds);
  // The first end counts; later ones (an abort after a time-out) are not told.
  void finish(Result<Response> head);
  void fail_call(const std::string& what);

  Target target_;
  const Timeouts timeouts_;
  std::string request_;
  Socket socket_;
  Timer timer_;
  std::unique_ptr<Resolver> resolver_;  // while it connects
  bhttp::response_parser<SinkBody> parser_;
  bool told_ = false;  // the receiver has been asked whether it wants the body
  std::string rest_;  // what the parser cannot use before there is more: part of a head, of a chunk
  TimePoint last_ = std::chrono::steady_clock::now();  // begin, or with idle_s the last byte

  std::recursive_mutex mutex_;
  bool silent_ = false;
  std::unique_ptr<Receiver> receiver_;
};

}  // namespace dsm::http
