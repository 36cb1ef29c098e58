// NVIDIA's numbers for what its driver finds wrong with a GPU, and what each means for a rank that
// computes on it. The catalogue for Ampere and newer, docs.nvidia.com/deploy/xid-errors
// ("Analyzing Xid Errors with the Xid Catalog"), names for each an immediate action; this table has
// those that are not the fault of a program, which a driver also reports by a number.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace dsm::health {

struct Xid {
  std::uint64_t number = 0;
  std::string_view what;
  // The process has to end: the catalogue asks for a restart of the application because of lost
  // memory, or for more than that.
  bool fatal = false;
  std::string_view remedy;  // what a person does
};

std::span<const Xid> known_xids();
// nullptr: a fault of a program, or not known here.
const Xid* find_xid(std::uint64_t number);

// A process that starts again can use the GPU, as it is.
bool restart_mends(const Xid& xid);

// "Xid 79 (GPU has fallen off the bus): restart the node".
std::string sentence(const Xid& xid);

}  // namespace dsm::health
