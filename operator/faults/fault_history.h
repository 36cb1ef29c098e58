// One random history of a cluster with one or two models: users edit, scale, bound, pause, revert,
// delete and make models anew, let them sleep and wake them, nodes are emptied, quotas change;
// operators crash, stand still, are cut off; their writes fail and their events are late, doubled
// or dropped; and with harm pods and nodes are lost, too. The same seed gives the same history. For
// tests.
#pragma once

#include "operator/faults/stage.h"

namespace dsm::faults {

HistoryResult play_history(unsigned seed, plan::Harm harm, plan::Sleep sleep = plan::Sleep::kNever);

}  // namespace dsm::faults
