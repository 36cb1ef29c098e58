// Threading: everything of a request happens on the client's one thread. Its callbacks are called
// with its mutex held (recursive, because a callback may destroy the handle), and the handle's
// destructor takes the same mutex: that is how it knows that no callback runs afterwards.
#include "base/http/client.h"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <thread>
#include <utility>

#include "base/http/call.h"

namespace dsm::http {
namespace {

constexpr std::size_t kMaxBytes = 1 << 20;  // of a whole body, or of one line of a stream

ErrorKind kind_of(int status) {
  if (status == 401 || status == 403) return ErrorKind::kDenied;
  if (status == 404) return ErrorKind::kNotFound;
  if (status == 429) return ErrorKind::kExhausted;
  return status >= 400 && status < 500 ? ErrorKind::kInvalid : ErrorKind::kTransient;
}

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

struct Core {
  explicit Core(Millis gather) : gather_(gather) {}

  // Until the context is stopped.
  void run() {
    if (gather_ == Millis(0)) {
      context.run();
      return;
    }
    while (context.run_one() > 0) {
      context.poll();
      // Nothing is waited for: this is the time in which more comes.
      std::this_thread::sleep_for(gather_);
    }
  }

  net::io_context context{1};

 private:
  const Millis gather_;
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
    net::post(core->context, [call] { call->abort(); });
  }

 private:
  std::weak_ptr<Core> core_;
  std::weak_ptr<Call> call_;
};

}  // namespace

struct Client::Impl {
  explicit Impl(Millis gather) : core(std::make_shared<Core>(gather)) {}

  std::shared_ptr<Core> core;
  net::executor_work_guard<net::io_context::executor_type> work =
      net::make_work_guard(core->context);
  std::thread thread{[core = core.get()] { core->run(); }};

  std::unique_ptr<Handle> start(const std::string& method, const std::string& body, Target target,
                                Call::Timeouts timeouts, std::unique_ptr<Receiver> receiver) {
    auto call =
        std::make_shared<Call>(core->context, std::move(target), timeouts, std::move(receiver));
    call->start(method, body);
    return std::make_unique<CallHandle>(core, call);
  }
};

Client::Client(Millis gather) : impl_(std::make_unique<Impl>(gather)) {}

Client::~Client() {
  impl_->core->context.stop();
  impl_->thread.join();
}

std::unique_ptr<Client::Handle> Client::get_lines(Target target, int idle_timeout_s,
                                                  std::function<void(std::string_view)> on_line,
                                                  std::function<void(Status)> on_end) {
  return impl_->start("GET", "", std::move(target), {.idle_s = idle_timeout_s, .total_s = 0},
                      std::make_unique<LineReceiver>(std::move(on_line), std::move(on_end)));
}

std::unique_ptr<Client::Handle> Client::send(const std::string& method, Target target,
                                             const std::string& body, int timeout_s,
                                             std::function<void(Result<Response>)> on_answer) {
  return impl_->start(method, body, std::move(target), {.idle_s = 0, .total_s = timeout_s},
                      std::make_unique<WholeReceiver>(std::move(on_answer)));
}

}  // namespace dsm::http
