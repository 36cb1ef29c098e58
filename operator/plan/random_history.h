// One random history of a model: a user edits, scales, pauses, reverts, cordons, lets it sleep and
// wakes it, PodGroups are installed and removed, pods and nodes are lost, and meanwhile the
// operator sees late and its writes are lost or end it (Faults). The same seed gives the same
// history. For tests.
#pragma once

#include <string>
#include <vector>

namespace dsm::plan {

// What a history may hold beside what a user asks for.
enum class Harm { kNone, kPodsAndNodes };
enum class Sleep { kNever, kSometimes };

// Sentences about what did not hold; empty: all did. That is
//   always    no more groups than replicas + maxSurge, once a change has been seen and done;
//   without
//             harm never fewer ready ones than replicas - maxUnavailable, once so many were ready
//   at last   when all is quiet, the model is as its spec says, every budget and PodGroup has its
//             group, old revisions are within their limit, and nothing is written any more
std::vector<std::string> breaches_of_history(unsigned seed, Harm harm, Sleep sleep = Sleep::kNever);

}  // namespace dsm::plan
