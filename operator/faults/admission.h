// What the simulated API server does to pods before it takes them, as the admission of a real one:
// LimitRanges give containers the requests that they lack, ResourceQuotas refuse what is too much.
// For tests.
#pragma once

#include <string>

#include "base/clock.h"
#include "operator/faults/objects.h"

namespace dsm::faults {

void take_default_requests(const Objects& objects, Json& pod);

// Why a quota of its namespace refuses a new pod, in the words of an API server; "": none does.
// Pods that should be gone by now do not count.
std::string over_quota(const Objects& objects, const Json& pod, WallTime now);

// Thousandths of a resource that a pod's containers request.
double requested(const Json& pod, const std::string& resource);

}  // namespace dsm::faults
