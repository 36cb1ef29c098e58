// Where a gRPC service listens.
#pragma once

#include <cstdint>
#include <string>

namespace dsm {

struct GrpcAddress {
  std::string host = "0.0.0.0";
  std::uint16_t port = 0;  // 0: the system chooses; see GrpcListener::port()

  std::string text() const { return host + ":" + std::to_string(port); }
};

}  // namespace dsm
