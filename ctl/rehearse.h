// What the operator would do, one look after the other, until there is nothing left to do: plan()
// carried out on values. It is assumed that everything goes well: pods find a node and become
// ready, a leader that is removed finishes its requests. Pure.
#pragma once

#include <string>
#include <vector>

#include "operator/api/status.h"
#include "operator/plan/observed.h"

namespace dsm::ctl {

struct Rehearsal {
  // Revision that the spec asked for before, and asks for now; empty: none.
  std::string revision_before;
  std::string revision;
  int desired = 0;                              // groups
  std::vector<std::vector<std::string>> steps;  // what is done in each look that writes
  std::vector<std::string> made;                // groups by name
  std::vector<std::string> removed;
  std::vector<std::string> kept;
  // What a person must change before this can work; empty: nothing.
  std::string problem;
  std::string waits;    // for what groups wait that are wanted and not made; empty: nothing
  std::string memory;   // whether the pods have enough; empty: the spec does not say the sizes
  bool paused = false;  // spec.rollout.paused: groups of another revision stay
  bool settled = true;  // false: given up, because it would go on for long
};

Rehearsal rehearse(plan::Observed observed);

}  // namespace dsm::ctl
