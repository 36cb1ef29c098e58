#include "kube/metrics.h"

namespace dsm::kube {

RequestObserver request_metrics(MetricsRegistry& registry, const std::string& host) {
  auto& requests = prometheus::BuildCounter()
                       .Name("rest_client_requests_total")
                       .Help("Requests to the API server by status code, method and host")
                       .Register(registry);
  auto& seconds = prometheus::BuildHistogram()
                      .Name("rest_client_request_duration_seconds")
                      .Help("Time from sending a request to its answer")
                      .Register(registry);
  const prometheus::Histogram::BucketBoundaries buckets{0.005, 0.025, 0.1, 0.25, 0.5, 1,
                                                        2,     4,     8,   15,   30,  60};
  for (const char* method : {"GET", "POST", "PUT", "PATCH", "DELETE"}) {
    const bool creates = std::string_view(method) == "POST";
    requests.Add({{"code", creates ? "201" : "200"}, {"method", method}, {"host", host}});
    seconds.Add({{"verb", method}, {"host", host}}, buckets);
  }
  return [&requests, &seconds, host, buckets](const std::string& method, int code, double took) {
    requests
        .Add({{"code", code == 0 ? "<error>" : std::to_string(code)},
              {"method", method},
              {"host", host}})
        .Increment();
    seconds.Add({{"verb", method}, {"host", host}}, buckets).Observe(took);
  };
}

}  // namespace dsm::kube
