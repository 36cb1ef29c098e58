// DeepSeekService over gRPC, beside the HTTP API and in front of the same Api: the same bounds, the
// same queue, the same metrics, the same drain. With it the standard health service. Plain text, as
// the HTTP port is. Thread-safe.
//
// gRPC's own threads call in here; answers come from the outlet's thread. A call that is cancelled,
// or whose deadline passed, ends its request.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/grpc/address.h"
#include "base/log.h"
#include "base/result.h"
#include "worker/server/api.h"

namespace dsm::grpc_api {

class GrpcServer {
 public:
  // `api` gives the Api while requests are taken and null otherwise; callable until stop() has
  // returned.
  GrpcServer(GrpcAddress address, std::function<server::Api*()> api, Logger log);
  ~GrpcServer();  // stop()
  GrpcServer(const GrpcServer&) = delete;
  GrpcServer& operator=(const GrpcServer&) = delete;

  Status start();              // kTransient with the address when it cannot listen
  std::uint16_t port() const;  // after start()
  // What the health service says; not serving at first.
  void serving(bool yes);
  // Takes nothing more and ends open calls. After Api::stop(), so that none is left waiting.
  void stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dsm::grpc_api
