// What one of a kernel knows of the others: how far each has come of which it is sure. Vector
// clocks: an actor counts up whenever it tells others something, and what it did is known to
// whoever knows a number as high as the one that it had then.
//
// Actors are the threads of the blocks that run side by side (a group), and what copies and
// multiplies for them beside them. Of groups that have ended others may know something, too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

namespace dsm::emulation {

struct Clocks;
using Known = std::shared_ptr<const Clocks>;  // null: nothing

struct Clocks {
  std::uint32_t group = 0;
  // Of each actor, as far as there are any; none is 0. It has done all up to there, and it has read
  // what it wanted to up to there, which is as much or more.
  std::vector<std::uint32_t> done;
  std::vector<std::uint32_t> read;
  std::map<std::uint32_t, Known> before;  // groups that have ended

  void note(std::size_t actor, std::uint32_t clock);
  void join(const Known& other);
  // That its actors have read what they had to: nothing of what they wrote is known for that.
  void join_reads(const Clocks& other);
};

inline std::uint32_t clock_of(const std::vector<std::uint32_t>& clocks, std::size_t actor) {
  return actor < clocks.size() ? clocks[actor] : 0;
}

// What is known to who knows both.
Known both(const Known& a, const Known& b);

}  // namespace dsm::emulation
