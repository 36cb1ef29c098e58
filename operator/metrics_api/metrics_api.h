// The metrics APIs of one replica, put together: certificate and registration (Keeper), whom to
// believe (TrustWatch), whose a token is (Tokens), whom the API server allows (Access), and the TLS
// server.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "operator/metrics_api/access.h"
#include "operator/metrics_api/keeper.h"
#include "operator/metrics_api/server.h"
#include "operator/metrics_api/tokens.h"
#include "operator/metrics_api/trust_watch.h"

namespace dsm::metrics_api {

struct MetricsApiOptions {
  std::string host = "0.0.0.0";
  std::uint16_t port = 8443;
  Place place;
};

// All must outlive the MetricsApi.
struct Clients {
  kube::Client& reads;
  kube::Client& writes;   // held back unless this replica leads
  kube::Client& reviews;  // asks who somebody is and what he may do
};

class MetricsApi {
 public:
  MetricsApi(const MetricsApiOptions& options, Clients clients, MetricsServer::Source source,
             Keeper::OnState on_state, MetricsRegistry& registry, Logger log);

  void start();  // throws when the port cannot be had
  void stop();
  void lead(bool leading) { keeper_.lead(leading); }
  // It has a certificate, so the API server can reach it.
  bool ready() const { return tls_->ready(); }
  void update_metrics();

 private:
  const std::shared_ptr<http::Tls> tls_;
  const Logger log_;
  prometheus::Gauge& expiry_;
  Keeper keeper_;
  TrustWatch trust_;
  Tokens tokens_;
  Access access_;
  MetricsServer server_;
};

}  // namespace dsm::metrics_api
