#include "worker/group/group.h"

#include <algorithm>

namespace dsm::group {

Status validate(const GroupOptions& o) {
  if (o.tensor_parallel < 1 || o.ranks_per_pod < 1 || o.tensor_parallel % o.ranks_per_pod != 0) {
    return fail(ErrorKind::kInvalid, "tensor-parallel (" + std::to_string(o.tensor_parallel) +
                                         ") must be a multiple of ranks-per-pod (" +
                                         std::to_string(o.ranks_per_pod) + ")");
  }
  if (o.pod_index < 0 || o.pod_index >= o.pods()) {
    return fail(ErrorKind::kInvalid, "pod-index must be 0 to " + std::to_string(o.pods() - 1) +
                                         " with " + std::to_string(o.pods()) +
                                         " pods in the group, it is " +
                                         std::to_string(o.pod_index));
  }
  if (o.pod_index > 0 && o.leader_host.empty()) {
    return fail(ErrorKind::kInvalid, "leader-host must be given for pod-index above 0");
  }
  return {};
}

int smallest_kv_room(const std::vector<RankState>& ranks) {
  int smallest = 0;
  for (const RankState& rank : ranks) {
    if (rank.kv_room > 0 && (smallest == 0 || rank.kv_room < smallest)) smallest = rank.kv_room;
  }
  return smallest;
}

bool rests(const RankState& rank) {
  return rank.phase == Phase::kAsleep || rank.phase == Phase::kWaking;
}

void describe_rest(Rest rest, GroupState& state) {
  const bool all = std::ranges::all_of(
      state.ranks, [](const RankState& rank) { return rank.phase == Phase::kAsleep; });
  if (rest == Rest::kAwake) {
    state.phase = Phase::kRendezvous;
    state.reason = "Waking";
    state.message = "the ranks take their devices' memory again";
  } else {
    state.phase = Phase::kAsleep;
    state.reason = all ? "Asleep" : "FallingAsleep";
    state.message = all ? "all ranks sleep: their devices' memory is free for others"
                        : "the ranks give their devices' memory back";
  }
}

std::string_view to_string(Phase phase) {
  switch (phase) {
    case Phase::kStarting:
      return "Starting";
    case Phase::kLoading:
      return "Loading";
    case Phase::kRendezvous:
      return "Rendezvous";
    case Phase::kReady:
      return "Ready";
    case Phase::kAsleep:
      return "Asleep";
    case Phase::kWaking:
      return "Waking";
    case Phase::kFailed:
      return "Failed";
  }
  return "Unknown";
}

}  // namespace dsm::group
