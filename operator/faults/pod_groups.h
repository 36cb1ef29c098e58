// The coscheduling plugin in a history: it, and with it the kind PodGroup, is installed and removed
// at any time. Its scheduler is that of the simulated cluster, which then gives nodes to all pods
// that name a PodGroup or to none. For tests; single-threaded.
#pragma once

#include <string>
#include <vector>

#include "operator/faults/api_server.h"

namespace dsm::faults {

void install_pod_groups(ApiServer& server, bool installed);
inline bool has_pod_groups(const ApiServer& server) {
  return server.kubelets().pod_groups;
}

// Groups that name a PodGroup which is not there, and PodGroups without such a group, as sentences.
// Without the kind there is nothing to be said.
std::vector<std::string> wrong_pod_groups(const ApiServer& server);

}  // namespace dsm::faults
