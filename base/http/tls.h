// The TLS side of a Server: its certificate, which may be changed while the server runs (a new one
// is used by the connections that begin afterwards), and whether clients show one of theirs.
//
// A client is asked for a certificate and may have none. What it shows is not judged here: the
// handshake proves that the client has its key, and Request::peer_certificates hands it on to
// whoever knows which authority to trust. Thread-safe.
#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "base/result.h"

namespace dsm::http {

class Tls {
 public:
  // kInvalid: one of the two cannot be read, or they do not belong together; the certificate in use
  // stays. `certificates` in PEM, the server's own first.
  Status use(const std::string& certificates, const std::string& key);
  // Until use() has succeeded once, connections are closed at once.
  bool ready() const { return context() != nullptr; }

  struct Context;  // in tls_context.h, for this room
  std::shared_ptr<Context> context() const;

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<Context> context_;  // guarded by mutex_
};

}  // namespace dsm::http
