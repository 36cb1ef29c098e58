// One random history of two tenants whose models compete for their budgets: three namespaces, and a
// fourth that joins one tenant, the other, both or none; budgets are raised and lowered, tenants
// deleted and made anew, models made, scaled, changed in size, rolled out and deleted, nodes
// emptied; under the same faults as other histories. The same seed gives the same history. For
// tests.
#pragma once

#include "operator/faults/fault_history.h"

namespace dsm::faults {

// Beside what other histories check:
//   always    the models of a tenant hold no more than its budget, or than they held before that
//             was lowered: nothing is begun beyond it, also no group for a while
//   quiet     what fits runs, and no older model waits for its first group meanwhile; used and
//             waitingModels are so; quotas, limit ranges, network policies and role bindings are
//             as the specs say
//   at last   with budgets that have room for all, every model is as its spec says; when the
//             tenants are gone, nothing of theirs is left, and the models go on
HistoryResult play_tenant_history(unsigned seed, plan::Harm harm);

}  // namespace dsm::faults
