#include "worker/group/leader_state.h"

#include <algorithm>
#include <cstddef>

namespace dsm::group {
namespace {

// All ranks of the group. `missing` gets the numbers of the pods that are not connected.
std::vector<RankState> ranks_of(const GroupOptions& options, const LeaderView& view,
                                std::string& missing) {
  std::vector<RankState> all = view.local;
  for (int index = 1; index < options.pods(); ++index) {
    const auto it = view.pods.find(index);
    if (it != view.pods.end() && !it->second.empty()) {
      all.insert(all.end(), it->second.begin(), it->second.end());
      continue;
    }
    for (int i = 0; i < options.ranks_per_pod; ++i) {
      all.push_back({.rank = index * options.ranks_per_pod + i,
                     .phase = Phase::kStarting,
                     .loaded_bytes = 0,
                     .total_bytes = 0,
                     .error = ""});
    }
    if (it == view.pods.end()) {
      missing += (missing.empty() ? "" : ", ") + std::to_string(index);
    }
  }
  return all;
}

}  // namespace

GroupState state_of(const GroupOptions& options, const LeaderView& view) {
  GroupState s;
  std::string missing;
  s.ranks = ranks_of(options, view, missing);
  s.ended = !view.condemned.empty() || std::ranges::any_of(view.local, [](const RankState& r) {
    return r.phase == Phase::kFailed;
  });
  const auto in_phase = [&](Phase phase) {
    return std::ranges::find_if(s.ranks, [&](const RankState& r) { return r.phase == phase; });
  };
  if (const auto failed = in_phase(Phase::kFailed); failed != s.ranks.end()) {
    s.phase = Phase::kFailed;
    s.reason = failed->reason;
    s.message = "rank " + std::to_string(failed->rank) + ": " + failed->error;
  } else if (!view.condemned.empty()) {
    s.phase = Phase::kFailed;
    s.reason = "ProbeFailed";
    s.message = view.condemned;
  } else if (view.stage == Stage::kReady) {
    // Until the engine has taken the epoch over it may still believe in the one before.
    s.phase = view.engine_knows ? Phase::kReady : Phase::kRendezvous;
    s.reason = "Formed";
    s.message = "all " + std::to_string(options.tensor_parallel) + " ranks are connected";
  } else if (in_phase(Phase::kLoading) != s.ranks.end()) {
    s.phase = Phase::kLoading;
    s.reason = "LoadingWeights";
    s.message = "weights are being loaded";
  } else if (!missing.empty()) {
    s.phase = Phase::kRendezvous;
    s.reason = "WaitingForPods";
    s.message = "waiting for pod " + missing + " of the group";
  } else if (view.rest == Rest::kAsleep || std::ranges::any_of(s.ranks, rests)) {
    describe_rest(view.rest, s);
  } else if (view.stage == Stage::kWaiting && !view.adapters.empty()) {
    s.phase = Phase::kRendezvous;
    s.reason = "LoadingAdapters";
    s.message = view.adapters;
  } else {
    s.phase = Phase::kRendezvous;
    s.reason = "Connecting";
    s.message = "the ranks are connecting";
  }
  return s;
}

}  // namespace dsm::group
