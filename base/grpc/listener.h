// A port on which one gRPC service is served, in plain text. For one thread, but for port().
#pragma once

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <memory>

#include "base/grpc/address.h"
#include "base/result.h"

namespace dsm {

class GrpcListener {
 public:
  GrpcListener() = default;
  ~GrpcListener() { stop(); }
  GrpcListener(const GrpcListener&) = delete;
  GrpcListener& operator=(const GrpcListener&) = delete;

  // `service` outlives it; `most_bytes` of a message that comes. kTransient with the address when
  // it cannot listen, also where another process listens there.
  Status start(const GrpcAddress& address, grpc::Service& service, int most_bytes);
  std::uint16_t port() const { return static_cast<std::uint16_t>(port_); }
  // Null before start() and after stop().
  grpc::Server* server() const { return server_.get(); }
  // Takes nothing more; calls that are open after two seconds are cancelled.
  void stop();

 private:
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
};

}  // namespace dsm
