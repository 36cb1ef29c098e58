// One random history of models that an autoscaler scales by their load, while others set replicas
// as well: as fault_history.h, and requests come and go, bounds change, scaling is turned off and
// on. The autoscaler reads the numbers that the operators would serve, from whichever of them it
// meets. For tests.
#pragma once

#include "operator/faults/stage.h"

namespace dsm::faults {

// Beside what other histories check:
//   always    a number that an operator says is not lower than what its leaders have held all the
//             time, also when the operator has just begun, hears nobody or sees late: such a number
//             is not known, and nothing is scaled down by it
//   at last   replicas are what the load asks for
HistoryResult play_scaling_history(unsigned seed, plan::Harm harm);

}  // namespace dsm::faults
