// Copies of many bytes to shared memory, which a barrier there counts in turns: 0, 1, ...
#pragma once

#include <cstdint>
#include <vector>

namespace dsm::emulation {

struct BulkCopy {
  void* to = nullptr;
  const void* from = nullptr;
  int bytes = 0;
};
void begin_turns(std::uint64_t* barrier, int threads);
// By each of the threads, once a turn: its copies, which follow, are so many bytes.
void expect_copies(std::uint64_t* barrier, int bytes);
void add_copy(std::uint64_t* barrier, const BulkCopy& copy);
// What the first thread that waits for a turn has to copy; nothing: it has been. Nobody may wait
// for a turn that has not begun or whose copies are not those that were said.
std::vector<BulkCopy> end_turn(std::uint64_t* barrier, int turn);

}  // namespace dsm::emulation
