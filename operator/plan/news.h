// The events of a look at a model: what a person who watches it is told.
#pragma once

#include <vector>

#include "operator/api/status.h"
#include "operator/plan/plan.h"

namespace dsm::plan {

// Events for what changed between two statuses.
std::vector<EventNote> news(const api::ModelStatus& before, const api::ModelStatus& after);

// One note for all of one kind, reason and action, its messages joined by "; ", in the order of the
// first of each: of many groups at once one event tells, and is one write.
std::vector<EventNote> folded(std::vector<EventNote> notes);

}  // namespace dsm::plan
