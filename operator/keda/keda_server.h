// KEDA's external scaler over gRPC: the numbers that external.metrics.k8s.io would give, for
// clusters in which KEDA owns that API. Every replica of the operator answers. Thread-safe.
//
// A number that is not known is UNAVAILABLE, so that KEDA keeps what is there; a trigger that
// cannot be read is INVALID_ARGUMENT with the remedy.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/grpc/address.h"
#include "base/log.h"
#include "base/result.h"
#include "operator/keda/trigger.h"

namespace dsm::keda {

// The number of a model now. kNotFound: there is no such model; kTransient: it is not known now.
using Numbers = std::function<Result<double>(const std::string& ns, const std::string& model,
                                             const std::string& metric)>;

class KedaServer {
 public:
  KedaServer(GrpcAddress address, Numbers numbers, Logger log);
  ~KedaServer();  // stop()
  KedaServer(const KedaServer&) = delete;
  KedaServer& operator=(const KedaServer&) = delete;

  Status start();              // kTransient with the address when it cannot listen
  std::uint16_t port() const;  // after start()
  // The model's numbers have changed: streams that ask for it are told if that changes their
  // answer.
  void changed(const std::string& ns, const std::string& model);
  void stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dsm::keda
