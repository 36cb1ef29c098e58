// How a model follows its load: the HorizontalPodAutoscaler on its scale subresource, and what is
// said about it. The autoscaler reads the numbers that the operator serves (operator/metrics_api)
// and sets spec.replicas; the operator itself never does.
//
// The numbers are External metrics. Where that API is somebody else's they are Object metrics of
// the model; the number of groups that follows from them is the same.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>

#include "operator/api/spec.h"
#include "operator/api/status.h"
#include "operator/plan/children.h"
#include "operator/plan/observed.h"

namespace dsm::plan {

struct Look;

// Groups that the spec asks for. With scaling the bounds hold whatever `replicas` says, so that a
// change of them does not wait for the autoscaler.
int wanted_replicas(const api::Spec& spec);

// Seconds in which an autoscaler may once add groups: those that it added before serve by then, so
// that it does not add more for a queue that they will take. `cold_start_s` 0: not known.
int scale_up_period(int cold_start_s);

// How an autoscaler gets at the numbers.
enum class MetricSource { kExternal, kObject };

// HorizontalPodAutoscaler <model>. `scaling` is on.
nlohmann::json autoscaler_json(const Owner& owner, const api::Scaling& scaling, MetricSource source,
                               int cold_start_s);

enum class AutoscalerWish {
  kNone,  // none is wanted: one of ours goes
  kKeep,  // not known yet: neither made nor removed
  kWanted
};
// An autoscaler that reads somebody else's numbers, or none, would only do harm.
AutoscalerWish autoscaler_wish(const Look& look);

// Condition ScalingActive; absent: the model does not scale by load. `there`: its autoscaler,
// nullptr: none.
std::optional<api::Condition> scaling_condition(const Look& look, const nlohmann::json* there);

}  // namespace dsm::plan
