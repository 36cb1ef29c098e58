// One random history of models whose groups are admitted whole, by a queue of Kueue, and get their
// nodes whole, where the coscheduling plugin is installed: as fault_history.h, and quotas of queues
// shrink and grow, others take them from groups that run, queues are drained, Kueue stands still,
// the plugin comes and goes, models change their queue and their scheduler. For tests.
#pragma once

#include "operator/faults/stage.h"

namespace dsm::faults {

// Beside what other histories check, where a group that is evicted is one less that is promised to
// be ready, until all are ready again:
//   always    no group of a model with a queue runs without having been admitted, nor more pods
//             than were admitted
//   cramped   while queues and nodes have too little, no group holds nodes for half of it for
//             longer than the operator's patience lasts
//   at last   each group that names a PodGroup has it; and when the models are deleted nothing of
//             them is left, whoever held it
HistoryResult play_gang_history(unsigned seed, plan::Harm harm);

}  // namespace dsm::faults
