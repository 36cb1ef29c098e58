// What the HTTP server did, under the names that dashboards of Python servers read:
// http_requests_total and http_request_duration_seconds. Thread-safe.
#pragma once

#include <memory>
#include <string>

#include "base/clock.h"
#include "base/http/server.h"
#include "base/metrics.h"

namespace dsm::server {

class HttpMetrics {
 public:
  // Both outlive this.
  HttpMetrics(MetricsRegistry& registry, Clock& clock);

  // A handler with its route's numbers. Series of a route begin at zero.
  http::Handler counted(const std::string& method, const std::string& path, http::Handler handler);
  http::AsyncHandler counted_async(const std::string& method, const std::string& path,
                                   http::AsyncHandler handler);
  // An answer of the server itself: no such path, a body that is too large, ...
  void refused(int status);

 private:
  struct Route;
  std::shared_ptr<Route> route(const std::string& method, const std::string& path);

  prometheus::Family<prometheus::Counter>& requests_;
  prometheus::Family<prometheus::Histogram>& durations_;
  Clock& clock_;
};

}  // namespace dsm::server
