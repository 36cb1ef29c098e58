// A short history of one model, made, changed, scaled and deleted, in which one thing goes wrong.
// For tests.
#pragma once

#include <string>
#include <vector>

#include "operator/faults/fault_source.h"

namespace dsm::faults {

struct ShortHistory {
  int groups = 2;
  int pods = 2;  // of a group
  enum class Until { kMade, kChanged, kScaled, kDeleted } until = Until::kDeleted;
};

// What did not hold; empty: all did.
std::vector<std::string> play(const ShortHistory& history, OneFault& fault);

}  // namespace dsm::faults
