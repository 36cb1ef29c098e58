// The only door to the API server: sockets, TLS and credentials live behind it. Implementations are
// thread-safe; calls block the calling thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <stop_token>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/result.h"
#include "kube/request.h"

namespace dsm::kube {

struct ClientConfig;

struct HttpResponse {
  int status = 0;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;

  bool ok() const { return status >= 200 && status < 300; }
  // Seconds of a Retry-After header, 0 when there is none.
  int retry_after_s() const;
};

class Transport {
 public:
  virtual ~Transport() = default;

  // Sends and reads the whole answer, whatever its status. kTransient: no answer within `timeout`,
  // or no connection; kCancelled: `stop` was requested.
  virtual Result<HttpResponse> send(const HttpRequest& request, Millis timeout,
                                    std::stop_token stop) = 0;

  // Sends and hands a 2xx answer's body over piece by piece, on the calling thread, until the
  // server ends it; the result then has an empty body. Any other status is returned whole.
  // kTransient: the connection broke or no byte came for `idle_timeout`. kCancelled, promptly, once
  // `stop` is requested.
  virtual Result<HttpResponse> stream(const HttpRequest& request, Millis idle_timeout,
                                      const std::function<void(std::string_view)>& on_bytes,
                                      std::stop_token stop) = 0;

  // The server answered 401: read token files again.
  virtual void refresh_credentials() = 0;
  // The server's host and port, for metrics labels.
  virtual std::string host() const = 0;
};

// Sizes the thread pool that all transports share. Call once, first thing in main; later calls and
// calls after a transport was made change nothing.
void initialize_transport_threads(int threads);

// On cpprestsdk, with keep-alive. One per process is enough.
Result<std::unique_ptr<Transport>> make_transport(const ClientConfig& config);

}  // namespace dsm::kube
