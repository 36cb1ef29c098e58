// An HTTP/1.1 server on Boost.Beast: a few threads, any number of connections, no thread per
// connection. Routes are added before start(). Handlers run on the server's threads and must not
// block; a handler that has to wait takes the streaming form and answers later from any thread
// through its Exchange.
//
// A client that closes its connection, or only its sending half, while an answer is being made is
// gone: the Exchange closes and the producer is told. Requests that a client sends ahead are
// answered in order, one at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/http/message.h"
#include "base/http/tls.h"
#include "base/log.h"
#include "base/result.h"

namespace dsm::http {

struct ServerOptions {
  std::string host = "0.0.0.0";
  std::uint16_t port = 0;  // 0: the system chooses; see Server::port()
  int threads = 2;
  std::size_t max_body_bytes = 16 << 20;    // more is answered 413
  std::size_t max_header_bytes = 64 << 10;  // more is answered 431
  // Of all requests that arrive or are being answered; one that would go beyond it is answered 503.
  std::size_t max_total_body_bytes = 256 << 20;
  int read_timeout_s = 60;              // to read one whole request once its first byte is there
  int idle_timeout_s = 300;             // between requests of a kept-alive connection
  int write_timeout_s = 60;             // a client that reads nothing for so long is dropped
  std::size_t max_connections = 10000;  // more are closed at once
  std::shared_ptr<Tls> tls = {};        // empty: plain HTTP
};

// One request waiting for its answer. Thread-safe; keep it alive until the answer is complete: when
// the last owner drops it before that, the client gets a 500, or the connection ends if the answer
// had begun. Either respond() once, or start(), write() any number of times, finish() or abort().
// After the client went away, and after the server stopped, all of them do nothing.
class Exchange {
 public:
  virtual ~Exchange() = default;
  virtual const Request& request() const = 0;
  virtual void respond(Response response) = 0;
  // Begins a chunked answer with these headers.
  virtual void start(int status, Headers headers) = 0;
  virtual void write(std::string chunk) = 0;
  virtual void finish() = 0;
  // Ends the connection now, whatever of the answer the client has not taken.
  virtual void abort() = 0;
  // Called once when the client closed the connection (or the server stopped) before
  // finish()/respond(): on a server thread, or at once on this one when it already has. Set at most
  // once.
  virtual void on_close(std::function<void()> callback) = 0;
  virtual bool closed() const = 0;
  // Bytes written but not yet taken by the client, without bound: a producer looks here before it
  // makes more.
  virtual std::size_t buffered_bytes() const = 0;
};

using Handler = std::function<Response(const Request&)>;
using AsyncHandler = std::function<void(std::shared_ptr<Exchange>)>;
// Makes the body of an error that the server itself answers (400, 404, 405, 408, 413, 431, 500,
// 503).
using ErrorBody = std::function<Response(int status, const std::string& message)>;

class Server {
 public:
  Server(ServerOptions options, Logger log);
  ~Server();  // stop()
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // `path` is exact, or a prefix when it ends with "/*". GET routes answer HEAD too.
  void route(const std::string& method, const std::string& path, Handler handler);
  void route_async(const std::string& method, const std::string& path, AsyncHandler handler);
  void error_body(ErrorBody make);
  // Every answer from now on carries "Connection: close" (draining), so that clients connect
  // elsewhere.
  void close_connections_after_answer(bool on);

  Status start();              // kTransient with the address when it cannot listen
  std::uint16_t port() const;  // after start()
  std::size_t connections() const;
  // Stops accepting, closes idle connections at once and the others after their answer, or when
  // `grace_s` has passed. Not from a handler. Afterwards no handler or callback runs.
  void stop(int grace_s = 0);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dsm::http
