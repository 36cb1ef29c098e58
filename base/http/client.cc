// Threading: each request is one coroutine on a strand of its own. Its callbacks are called with
// its mutex held (recursive, because a callback may destroy the handle), and the handle's
// destructor takes the same mutex: that is how it knows that no callback runs afterwards.

// Boost 1.74's awaitable.hpp uses std::exchange without including it.
#include "base/http/client.h"

#include <algorithm>
#include <array>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/buffers_range.hpp>
#include <boost/beast/http/parser.hpp>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/http/boost_names.h"

namespace dsm::http {
namespace {

// Of one read. A request that waits for bytes has no buffer: an operator has thousands of them
// open.
constexpr std::size_t kReadBytes = 16 << 10;
constexpr std::size_t kMaxHeaderBytes = 64 << 10;
constexpr std::size_t kMaxBytes = 1 << 20;  // of a whole body, or of one line of a stream

// A Beast body that hands its bytes to a function as they come, instead of keeping them.
struct SinkBody {
  using value_type = std::function<bool(std::string_view)>;  // false: enough, stop

  class reader {
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

ErrorKind kind_of(int status) {
  if (status == 401 || status == 403) return ErrorKind::kDenied;
  if (status == 404) return ErrorKind::kNotFound;
  if (status == 429) return ErrorKind::kExhausted;
  return status >= 400 && status < 500 ? ErrorKind::kInvalid : ErrorKind::kTransient;
}

// What a request does with its answer; called with the mutex of the Call held.
class Receiver {
 public:
  virtual ~Receiver() = default;
  virtual bool want_body(int status) = 0;
  virtual bool data(std::string_view bytes) = 0;  // false: too much
  virtual void end(Result<Response> head) = 0;  // the answer without its body, or why there is none
};

class LineReceiver final : public Receiver {
 public:
  LineReceiver(std::function<void(std::string_view)> on_line, std::function<void(Status)> on_end)
      : on_line_(std::move(on_line)), on_end_(std::move(on_end)) {}

  bool want_body(int status) override { return good_ = status >= 200 && status < 300; }

  bool data(std::string_view bytes) override {
    if (!good_) return true;  // the text of an error is not part of the stream
    for (;;) {
      const auto newline = bytes.find('\n');
      if (newline == std::string_view::npos) break;
      const std::string_view end = bytes.substr(0, newline);
      bytes.remove_prefix(newline + 1);
      if (line_.empty()) {
        emit(end);  // most lines come whole
      } else {
        line_ += end;
        emit(line_);
        line_ = std::string();  // and not its room: there are thousands of streams
      }
    }
    line_ += bytes;
    return line_.size() <= kMaxBytes;
  }

  void end(Result<Response> head) override {
    if (!head) {
      on_end_(std::unexpected(head.error()));
      return;
    }
    if (!good_) {
      Error error{kind_of(head->status), "HTTP status " + std::to_string(head->status), 0};
      on_end_(std::unexpected(std::move(error)));
      return;
    }
    if (!line_.empty()) emit(line_);
    on_end_({});
  }

 private:
  void emit(std::string_view line) {
    if (line.ends_with('\r')) line.remove_suffix(1);
    on_line_(line);
  }

  std::function<void(std::string_view)> on_line_;
  std::function<void(Status)> on_end_;
  std::string line_;  // the beginning of one that has not come whole
  bool good_ = false;
};

class WholeReceiver final : public Receiver {
 public:
  explicit WholeReceiver(std::function<void(Result<Response>)> on_answer)
      : on_answer_(std::move(on_answer)) {}

  bool want_body(int) override { return true; }
  bool data(std::string_view bytes) override {
    body_ += bytes;
    return body_.size() <= kMaxBytes;
  }
  void end(Result<Response> head) override {
    if (head) head->body = std::move(body_);
    on_answer_(std::move(head));
  }

 private:
  std::function<void(Result<Response>)> on_answer_;
  std::string body_;
};

std::string why(const error_code& ec) {
  if (ec == bhttp::error::body_limit) return "the answer is too large";
  const bool malformed =
      ec.category() == bhttp::make_error_code(bhttp::error::need_more).category();
  return (malformed ? "malformed answer: " : "the connection was lost: ") + ec.message();
}

// One request under way.
class Call : public std::enable_shared_from_this<Call> {
 public:
  struct Timeouts {
    int idle_s = 0;   // restarts with every byte; 0: none
    int total_s = 0;  // 0: none
  };

  Call(net::io_context& context, Target target, Timeouts timeouts,
       std::unique_ptr<Receiver> receiver)
      : target_(std::move(target)),
        timeouts_(timeouts),
        socket_(net::make_strand(context)),
        resolver_(socket_.get_executor()),
        timer_(socket_.get_executor()),
        receiver_(std::move(receiver)) {}

  void start(const std::string& method, const std::string& body) {
    request_ = request_bytes(method, target_, body);
    net::co_spawn(socket_.get_executor(), run(shared_from_this()), net::detached);
  }

  // No callback afterwards. From any thread.
  void silence() {
    std::lock_guard lock(mutex_);
    silent_ = true;
  }
  // On the strand.
  void abort() {
    error_code ignored;
    socket_.close(ignored);
    resolver_.cancel();
    timer_.cancel();
  }
  net::any_io_executor executor() { return socket_.get_executor(); }

 private:
  using Parser = bhttp::response_parser<SinkBody>;

  net::awaitable<void> run(std::shared_ptr<Call> self);
  net::awaitable<bool> connect();
  net::awaitable<bool> send();
  net::awaitable<void> read_answer();
  error_code read_into(Parser& parser);
  void arm(int seconds);
  // The first end counts; later ones (an abort after a time-out) are not told.
  void finish(Result<Response> head) {
    timer_.cancel();
    std::lock_guard lock(mutex_);
    if (silent_) return;
    silent_ = true;
    receiver_->end(std::move(head));
  }
  void fail_call(const std::string& what) {
    finish(fail(ErrorKind::kTransient,
                target_.host + ":" + std::to_string(target_.port) + target_.path + ": " + what));
  }

  const Target target_;
  const Timeouts timeouts_;
  std::string request_;
  tcp::socket socket_;
  tcp::resolver resolver_;
  net::steady_timer timer_;
  std::string rest_;
  TimePoint last_ = std::chrono::steady_clock::now();  // begin, or with idle_s the last byte

  std::recursive_mutex mutex_;
  bool silent_ = false;
  std::unique_ptr<Receiver> receiver_;
};

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
    self->abort();
  });
}

net::awaitable<void> Call::run(std::shared_ptr<Call> self) {
  (void)self;  // keeps this alive
  arm(timeouts_.total_s > 0 ? timeouts_.total_s : timeouts_.idle_s);
  try {
    if (co_await connect() && co_await send()) co_await read_answer();
  } catch (const std::exception& problem) {
    fail_call(problem.what());
  }
  abort();
}

// False: it has failed, and that is told.
net::awaitable<bool> Call::connect() {
  error_code ec;
  const auto found = co_await resolver_.async_resolve(target_.host, std::to_string(target_.port),
                                                      net::redirect_error(net::use_awaitable, ec));
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

net::awaitable<bool> Call::send() {
  error_code ec;
  co_await net::async_write(socket_, net::buffer(request_),
                            net::redirect_error(net::use_awaitable, ec));
  request_ = std::string();  // its room, too: a stream stays open
  // A peer may answer and close before it has read everything: the answer counts.
  co_return true;
}

// Feeds the parser with what has come. `rest_` keeps what it cannot use before there is more: the
// beginning of a header or of a chunk.
error_code Call::read_into(Parser& parser) {
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
  while (!input.empty() && !parser.is_done()) {
    const std::size_t used = parser.put(net::buffer(input), ec);
    input.remove_prefix(used);
    // Interim answers (1xx) are not asked for and count as malformed when one comes.
    if (ec || used == 0) break;
  }
  if (ec == bhttp::error::need_more && input.size() <= kMaxHeaderBytes) ec = {};
  rest_ = input;
  return ec;
}

net::awaitable<void> Call::read_answer() {
  Parser parser;
  parser.eager(true);
  parser.header_limit(kMaxHeaderBytes);
  parser.body_limit(boost::none);
  bool told = false;
  parser.get().body() = [this, &parser, &told](std::string_view bytes) {
    std::lock_guard lock(mutex_);
    if (silent_) return false;
    if (!told) {
      told = true;
      receiver_->want_body(static_cast<int>(parser.get().result_int()));
    }
    return receiver_->data(bytes);
  };
  while (!parser.is_done()) {
    error_code ec;
    co_await socket_.async_wait(tcp::socket::wait_read,
                                net::redirect_error(net::use_awaitable, ec));
    if (!ec) ec = read_into(parser);
    if (ec == net::error::eof && parser.got_some()) {
      parser.put_eof(ec);
      if (ec) {
        fail_call("the answer broke off");
        co_return;
      }
      break;
    }
    if (ec) {
      fail_call(why(ec));
      co_return;
    }
  }
  Response head;
  head.status = static_cast<int>(parser.get().result_int());
  for (const auto& field : parser.get()) {
    head.headers[std::string(field.name_string())] =
        std::string(field.value().data(), field.value().size());
  }
  const auto type = head.headers.find("content-type");
  head.content_type = type == head.headers.end() ? "" : type->second;
  {
    std::lock_guard lock(mutex_);
    if (!told && !silent_) receiver_->want_body(head.status);
  }
  finish(std::move(head));
}

struct Core {
  net::io_context context;
};

class CallHandle final : public Client::Handle {
 public:
  CallHandle(std::weak_ptr<Core> core, const std::shared_ptr<Call>& call)
      : core_(std::move(core)), call_(call) {}
  ~CallHandle() override {
    // The core first: while it is held, its context and with it the call's socket exist.
    const auto core = core_.lock();
    if (!core) return;
    const auto call = call_.lock();
    if (!call) return;
    call->silence();
    net::post(call->executor(), [call] { call->abort(); });
  }

 private:
  std::weak_ptr<Core> core_;
  std::weak_ptr<Call> call_;
};

}  // namespace

struct Client::Impl {
  std::shared_ptr<Core> core = std::make_shared<Core>();
  net::executor_work_guard<net::io_context::executor_type> work =
      net::make_work_guard(core->context);
  std::vector<std::thread> threads;

  std::unique_ptr<Handle> start(const std::string& method, const std::string& body, Target target,
                                Call::Timeouts timeouts, std::unique_ptr<Receiver> receiver) {
    auto call =
        std::make_shared<Call>(core->context, std::move(target), timeouts, std::move(receiver));
    call->start(method, body);
    return std::make_unique<CallHandle>(core, call);
  }
};

Client::Client(int threads) : impl_(std::make_unique<Impl>()) {
  for (int i = 0; i < std::max(1, threads); ++i) {
    impl_->threads.emplace_back([core = impl_->core.get()] { core->context.run(); });
  }
}

Client::~Client() {
  impl_->core->context.stop();
  for (auto& thread : impl_->threads) thread.join();
}

std::unique_ptr<Client::Handle> Client::get_lines(Target target, int idle_timeout_s,
                                                  std::function<void(std::string_view)> on_line,
                                                  std::function<void(Status)> on_end) {
  return impl_->start("GET", "", std::move(target), {.idle_s = idle_timeout_s, .total_s = 0},
                      std::make_unique<LineReceiver>(std::move(on_line), std::move(on_end)));
}

std::unique_ptr<Client::Handle> Client::send(std::string method, Target target, std::string body,
                                             int timeout_s,
                                             std::function<void(Result<Response>)> on_answer) {
  return impl_->start(method, body, std::move(target), {.idle_s = 0, .total_s = timeout_s},
                      std::make_unique<WholeReceiver>(std::move(on_answer)));
}

}  // namespace dsm::http
