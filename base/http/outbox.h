// What stands between the thread that makes an answer and the connection that sends it: a queue of
// chunks with an end. Thread-safe. The producer's calls do nothing once the connection closed it,
// so a producer never has to know whether the client, or even the server, is still there.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <optional>
#include <string>

#include "base/http/message.h"

namespace dsm::http {

class Outbox {
 public:
  // `wake` is called, with the lock held, when there is something new to take(); never after
  // close().
  explicit Outbox(std::function<void()> wake) : wake_(std::move(wake)) {}

  // The producer's side.
  void respond(Response response);
  void start(int status, Headers headers);
  void write(std::string chunk);
  void finish();
  void abandon();  // the producer is gone; without an end the answer cannot become right
  void on_close(std::function<void()> callback);
  bool closed() const { return closed_.load(std::memory_order_acquire); }
  std::size_t buffered_bytes() const { return buffered_.load(std::memory_order_relaxed); }

  // The connection's side.
  struct Head {
    int status = 200;
    Headers headers;
  };
  struct Taken {
    std::optional<Response> response;  // the whole answer, or
    std::optional<Head> head;          // the beginning of a chunked one,
    std::string data;                  // more of it,
    bool finished = false;             // and its end
    bool abandoned = false;
    bool empty() const { return !response && !head && data.empty() && !finished && !abandoned; }
  };
  Taken take();
  void sent(std::size_t bytes) { buffered_.fetch_sub(bytes, std::memory_order_relaxed); }
  // The producer has said everything.
  bool finished() const;
  // No more is sent. Calls on_close's callback when the producer had not finished.
  void close();

 private:
  void wake_locked() {
    if (wake_) wake_();
  }

  mutable std::mutex mutex_;
  std::function<void()> wake_;
  std::function<void()> on_close_;
  Taken pending_;
  bool started_ = false;
  bool finished_ = false;
  std::atomic<bool> closed_ = false;
  std::atomic<std::size_t> buffered_ = 0;
};

}  // namespace dsm::http
