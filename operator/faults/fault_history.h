// One random history of a cluster with one or two models: users edit, scale, bound, pause, revert,
// delete and make models anew, let them sleep and wake them, nodes are emptied, quotas change;
// operators crash, stand still, are cut off; their writes fail and their events are late, doubled
// or dropped; and with harm pods and nodes are lost, too. The same seed gives the same history. For
// tests.
#pragma once

#include <string>
#include <vector>

#include "operator/plan/random_history.h"

namespace dsm::faults {

struct HistoryResult {
  // Sentences about what did not hold, then what happened; empty: all did. That is
  //   always    who writes holds the Lease; a pod has one owner and its place alone; writes in a
  //             second are bounded; no more groups than the rollout allows, and without harm never
  //             fewer ready ones
  //   at last   when all is quiet, every model is as its spec says, nothing is left of models that
  //             are gone, nothing is written any more, and all that was written is bounded by the
  //             number of objects and events
  std::vector<std::string> breaches;
  int seconds = 0;
  int writes = 0;
  int late_writes = 0;
  int most_writes = 0;  // that it may have
};

HistoryResult play_history(unsigned seed, plan::Harm harm, plan::Sleep sleep = plan::Sleep::kNever);

}  // namespace dsm::faults
