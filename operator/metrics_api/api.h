// Kubernetes' metrics APIs as a pure function: the answer to a call from the loads of the models
// (kubernetes/metrics, pkg/apis/external_metrics/v1beta1 and custom_metrics/v1beta2). Discovery,
// the value of a metric for the models of a namespace or for one model, and Kubernetes' Status
// objects for errors.
//
// A model that is known always has a number, 0 when it is idle: an autoscaler takes an empty list
// for an error. A number that is not known is never made up: then the answer is 503, and an
// autoscaler keeps what it has.
#pragma once

#include <string>
#include <vector>

#include "base/http/message.h"
#include "operator/metrics_api/call.h"
#include "operator/plan/load.h"

namespace dsm::metrics_api {

// What is known when a call is answered.
struct View {
  bool synced = false;                 // the caches have had their first lists
  std::vector<plan::ModelLoad> loads;  // of the models that the call may mean
};

http::Response answer(const Call& call, const View& view);

// One number of one model. kTransient: it is not known now; kNotFound: there is no such model, or
// no such metric.
Result<double> number_of(const View& view, const std::string& model, const std::string& metric);

// A Kubernetes Status object: 403 gives reason Forbidden, and so on.
http::Response status_answer(int code, const std::string& message);

// A Kubernetes quantity of a number of thousandths: 1500 is "1500m", 2000 is "2".
std::string quantity(long thousandths);

}  // namespace dsm::metrics_api
