// An asynchronous HTTP/1.1 client for long-lived line streams and small requests to many peers, on
// one thread (Boost.Beast, plain TCP). One connection per request. Callbacks run on that thread and
// must be quick.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/http/message.h"
#include "base/result.h"

namespace dsm::http {

struct Target {
  std::string host;  // address or DNS name
  std::uint16_t port = 80;
  std::string path = "/";
  Headers headers;
};

class Client {
 public:
  // Destroying the handle ends the request; no callback runs after the destructor returned. It may
  // be destroyed in its own callback. It waits for a callback that is running, so do not hold a
  // lock that the callback takes. It may outlive the Client.
  class Handle {
   public:
    virtual ~Handle() = default;
  };

  // `gather`: what comes is read so much later, together with what else has come until then. For
  // thousands of streams that say little: waking up costs more than reading a line.
  explicit Client(Millis gather = Millis(0));
  ~Client();  // ends all requests; none of their callbacks runs afterwards
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // GET whose body is read line by line (without the line's end; a last line without one counts).
  // on_end is called once: Status{} when the peer ended the body properly, kTransient when the
  // connection failed, the answer broke off, a line was longer than 1 MiB, or no byte came for
  // idle_timeout_s (0: no limit); else the answer's status as an error (401 and 403 kDenied, 404
  // kNotFound, 429 kExhausted, other 4xx kInvalid, 5xx kTransient).
  std::unique_ptr<Handle> get_lines(Target target, int idle_timeout_s,
                                    std::function<void(std::string_view line)> on_line,
                                    std::function<void(Status)> on_end);
  // One request, the whole answer, whatever its status. kTransient when the connection failed or
  // timeout_s (for everything together) passed. Bodies of answers are bounded to 1 MiB.
  std::unique_ptr<Handle> send(const std::string& method, Target target, const std::string& body,
                               int timeout_s, std::function<void(Result<Response>)> on_answer);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dsm::http
