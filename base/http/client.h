// An asynchronous HTTP/1.1 client for long-lived line streams and small requests to many peers, on
// a few threads (Boost.Beast, plain TCP). Callbacks run on the client's threads and must be quick.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

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
  // Destroying the handle ends the request; no callback runs after the destructor returned.
  class Handle {
   public:
    virtual ~Handle() = default;
  };

  explicit Client(int threads = 1);
  ~Client();

  // GET whose body is read line by line. on_end is called once: Status{} when the peer ended the
  // body, kTransient when the connection failed or no byte came for idle_timeout_s, else the
  // answer's status as an error.
  std::unique_ptr<Handle> get_lines(Target target, int idle_timeout_s,
                                    std::function<void(std::string_view line)> on_line,
                                    std::function<void(Status)> on_end);
  // One request, the whole answer. Bodies of answers are bounded to 1 MiB.
  std::unique_ptr<Handle> send(std::string method, Target target, std::string body, int timeout_s,
                               std::function<void(Result<Response>)> on_answer);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dsm::http
