// What the leader says of its group, as a function of what it knows.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "worker/group/group.h"

namespace dsm::group {

enum class Stage { kWaiting, kConnecting, kReady };  // of the epoch under way

struct LeaderView {
  std::vector<RankState> local;                // the leader's own ranks
  std::map<int, std::vector<RankState>> pods;  // that are connected, by number; empty: not told yet
  Stage stage = Stage::kWaiting;
  bool engine_knows = false;  // the engine works in the epoch under way
  Rest rest = Rest::kAwake;   // that all ranks are told
  std::string condemned;      // why; empty: it is not
  std::string adapters;       // what is missing of them, as a sentence; empty: nothing
};

// ranks, ended, phase, reason and message of the state; the rest is left as it is.
GroupState state_of(const GroupOptions& options, const LeaderView& view);

}  // namespace dsm::group
