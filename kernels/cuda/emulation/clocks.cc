#include "kernels/cuda/emulation/clocks.h"

#include <algorithm>

namespace dsm::emulation {
namespace {

void raise(std::vector<std::uint32_t>& clocks, const std::vector<std::uint32_t>& others) {
  if (clocks.size() < others.size()) clocks.resize(others.size());
  std::uint32_t* const to = clocks.data();
  const std::uint32_t* const from = others.data();
  for (std::size_t i = 0; i < others.size(); ++i) to[i] = std::max(to[i], from[i]);
}

}  // namespace

void Clocks::note(std::size_t actor, std::uint32_t clock) {
  if (done.size() <= actor) done.resize(actor + 1);
  if (read.size() <= actor) read.resize(actor + 1);
  done[actor] = std::max(done[actor], clock);
  read[actor] = std::max(read[actor], clock);
}

void Clocks::join(const Known& other) {
  if (other == nullptr) return;
  if (other->group == group) {
    raise(done, other->done);
    raise(read, other->read);
  } else {
    Known& its = before[other->group];
    its = both(its, other);
  }
  for (const auto& [number, known] : other->before) {
    Known& its = before[number];
    its = both(its, known);
  }
}

void Clocks::join_reads(const Clocks& other) {
  raise(read, other.read);
}

Known both(const Known& a, const Known& b) {
  if (a == b || b == nullptr) return a;
  if (a == nullptr) return b;
  // What is known of a later group comes to be what a group before knows of nobody.
  const Known& later = a->group >= b->group ? a : b;
  auto joined = std::make_shared<Clocks>(*later);
  joined->join(later == a ? b : a);
  return joined;
}

}  // namespace dsm::emulation
