// What every kind of random history is played on: a world whose faults a seed decides, what happens
// to nodes and operators in it, and what was done in it. A history is a value: how it begins, what
// may happen in it, and how it ends. For tests; single-threaded.
#pragma once

#include <functional>
#include <random>
#include <string>
#include <vector>

#include "operator/faults/troubles.h"
#include "operator/plan/random_history.h"

namespace dsm::faults {

struct HistoryResult {
  // Sentences about what did not hold, then what happened; empty: all did. That is
  //   always    who writes holds the Lease, and writes no spec; a pod has one owner and its place
  //             alone; writes in a second are bounded; no more groups than the rollout allows, and
  //             without harm never fewer ready ones
  //   at last   when all is quiet, every model is as its spec says, nothing is left of models that
  //             are gone, nothing is written any more, and all that was written is bounded by the
  //             number of objects and events
  // and what the kind of history adds.
  std::vector<std::string> breaches;
  int seconds = 0;
  int writes = 0;
  int late_writes = 0;
  int most_writes = 0;  // that it may have
};

class Stage {
 public:
  Stage(unsigned seed, plan::Harm harm,
        const runtime::ModelLoopOptions& options = Replica::loop_options());

  ApiServer& server() { return world.server(); }
  void log(const std::string& what);
  int below(int end) { return faults.below(end); }
  bool one_in(int n) { return faults.below(n) == 0; }
  template <typename List>
  auto& one_of(List& list) {
    return list[static_cast<std::size_t>(below(static_cast<int>(std::size(list))))];
  }

  // No faults any more, and whoever stands still goes on.
  void end_faults();
  // Until it has come to rest; false, and a breach, if it does not.
  bool rest(const std::string& when);
  // The world is at rest, and stays so: restarts are forgotten, and nothing is written.
  void check_stillness();

  std::mt19937 random;
  RandomFaults faults;
  World world;
  Troubles troubles;
  std::vector<std::string> done;
};

struct History {
  using Act = std::function<void()>;

  Act begin;
  int seconds = 150;
  int every = 5;  // one second in so many brings an act
  Act act;
  Act end;
};

HistoryResult play(Stage& stage, const History& history);

}  // namespace dsm::faults
