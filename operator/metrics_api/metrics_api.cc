#include "operator/metrics_api/metrics_api.h"

#include <stdexcept>

namespace dsm::metrics_api {
namespace {

http::ServerOptions server_options(const MetricsApiOptions& options,
                                   std::shared_ptr<http::Tls> tls) {
  http::ServerOptions result;
  result.host = options.host;
  result.port = options.port;
  result.threads = 1;
  result.max_body_bytes = 64 << 10;
  result.read_timeout_s = 10;
  result.max_connections = 200;
  result.tls = std::move(tls);
  return result;
}

}  // namespace

MetricsApi::MetricsApi(const MetricsApiOptions& options, Clients clients,
                       MetricsServer::Source source, Keeper::OnState on_state,
                       MetricsRegistry& registry, Logger log)
    : tls_(std::make_shared<http::Tls>()),
      log_(log),
      expiry_(prometheus::BuildGauge()
                  .Name("deepseek_operator_metrics_api_certificate_expiry_timestamp_seconds")
                  .Help("When the certificate of the metrics APIs ends; 0: there is none")
                  .Register(registry)
                  .Add({})),
      keeper_(options.place, clients.reads, clients.writes, tls_, std::move(on_state), log),
      trust_(clients.reads, log),
      tokens_(clients.reviews),
      access_(clients.reviews),
      server_(
          server_options(options, tls_), tokens_, access_, clients.reviews.clock(),
          [this] { return trust_.trust(); }, std::move(source), registry, std::move(log)) {}

void MetricsApi::start() {
  if (Status started = server_.start(); !started) {
    throw std::runtime_error(started.error().message);
  }
  log_.info("serves metrics to autoscalers", {{"port", server_.port()}});
  trust_.start();
  keeper_.start();
}

void MetricsApi::stop() {
  keeper_.stop();
  server_.stop();
  trust_.stop();
}

void MetricsApi::update_metrics() {
  expiry_.Set(
      static_cast<double>(std::chrono::system_clock::to_time_t(keeper_.certificate_until())));
}

}  // namespace dsm::metrics_api
