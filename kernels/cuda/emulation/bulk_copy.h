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
// By each of the threads, once a turn: as many bytes are copied besides, by whomever.
void expect_copies(std::uint64_t* barrier, int bytes);
void add_copy(std::uint64_t* barrier, const BulkCopy& copy);
// Waits until a turn's copies are those that were said. What the first thread has to copy that
// comes so far; nothing: it has been.
std::vector<BulkCopy> end_turn(std::uint64_t* barrier, int turn);

// How many turns somebody has waited for.
unsigned turns_ended(std::uint64_t* barrier);

// Copies from shared memory, which are done when the thread that has started them waits; one thread
// of a block does at a time.
void store_later(const BulkCopy& copy);
std::vector<BulkCopy> stores_until_now();

}  // namespace dsm::emulation
