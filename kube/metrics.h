// The request metrics that dashboards for controllers expect: rest_client_requests_total{code,
// method,host} and rest_client_request_duration_seconds{verb,host}.
#pragma once

#include <string>

#include "base/metrics.h"
#include "kube/client.h"

namespace dsm::kube {

// The observer adds to metrics of `registry`, which must outlive it. The usual codes are there with
// zero from the start.
RequestObserver request_metrics(MetricsRegistry& registry, const std::string& host);

}  // namespace dsm::kube
