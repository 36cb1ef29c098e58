// How long a new group takes from the making of its pods until it serves: a node, the image, the
// weights, the meeting of its ranks. It is measured at each group that becomes ready for the first
// time; what is known of earlier ones is in the status. Pure.
#pragma once

#include <vector>

#include "operator/api/status.h"
#include "operator/plan/groups.h"

namespace dsm::plan {

// The longest that is believed, in seconds; a group that waited longer for a node says nothing
// about the next one. It is also the longest period that an autoscaler's policy may have.
inline constexpr int kLongestColdStart = 1800;

// Seconds; 0: none was measured yet. Each measurement that is more than a quarter off moves the
// number half-way to it, smaller ones leave it, so that what depends on it is not written each
// time.
int cold_start_seconds(const api::ModelStatus& before, const std::vector<Group>& groups);

}  // namespace dsm::plan
