// Writes that the API server refuses for good reasons of its own: a quota, admission, a field that
// is wrong. Such a write is tried again every kRetryRefused. Private to operator/plan.
#pragma once

#include <map>
#include <string>

#include "operator/plan/cause.h"
#include "operator/plan/observed.h"

namespace dsm::plan {

// A write that was refused is tried again after this time, a name that is taken looked at again.
inline constexpr Seconds kRetryRefused{15};

// Not by a passing state of the network or the API server.
bool lasting(const WriteFailure& failure);

// In the API server's words. A refusal by quota is told from others by them.
Cause refusal_cause(const WriteFailure& failure);

// Pods of one group that are refused.
struct Refusal {
  WallTime since;  // of the first one in a row
  WallTime last;
  Cause cause;  // of one of them

  // Once may be a mistake: a quota goes on counting pods that are gone for a moment.
  bool again() const { return last - since >= kRetryRefused; }
};

// By the names of the groups. One that has not been tried for a while says nothing of now.
std::map<std::string, Refusal> refused_groups(const Observed& observed);

}  // namespace dsm::plan
