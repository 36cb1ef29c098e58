#include "kernels/cuda/emulation/bulk_copy.h"

#include <unordered_map>
#include <utility>

#include "kernels/cuda/emulation/block.h"
#include "kernels/cuda/emulation/order.h"

namespace dsm::emulation {
namespace {

struct Turns {
  int threads = 0;
  unsigned ended = 0;
  // Of the turn after those:
  int came = 0;  // threads
  int bytes =
      0;  // of copies that are still to come; less than none: some came before they were said
  std::vector<BulkCopy> copies = {};
};
// Kernels run one at a time.
std::unordered_map<std::uint64_t*, Turns>& barriers() {
  static std::unordered_map<std::uint64_t*, Turns> all;
  return all;
}

Turns& turns_of(std::uint64_t* barrier) {
  const auto at = barriers().find(barrier);
  if (at == barriers().end()) fail("a barrier of copies that was not begun");
  return at->second;
}

bool aligned(const void* pointer) {
  return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0;
}

void check_copy(const BulkCopy& copy) {
  if (!aligned(copy.to) || !aligned(copy.from) || copy.bytes <= 0 || copy.bytes % 16 != 0) {
    fail("a copy that is not aligned to 16 bytes");
  }
}

// By the thread's place in shared memory: each block's has its own.
std::unordered_map<void*, std::vector<BulkCopy>>& stores() {
  static std::unordered_map<void*, std::vector<BulkCopy>> all;
  return all;
}

}  // namespace

void begin_turns(std::uint64_t* barrier, int threads) {
  barriers()[barrier] = {.threads = threads};
}

void expect_copies(std::uint64_t* barrier, int bytes) {
  Turns& turns = turns_of(barrier);
  if (turns.came == turns.threads)
    fail("a turn of copies while nobody has waited for the last one");
  ++turns.came;
  turns.bytes += bytes;
}

void add_copy(std::uint64_t* barrier, const BulkCopy& copy) {
  check_copy(copy);
  Turns& turns = turns_of(barrier);
  turns.bytes -= copy.bytes;
  turns.copies.push_back(copy);
}

std::vector<BulkCopy> end_turn(std::uint64_t* barrier, int turn) {
  Turns& turns = turns_of(barrier);
  // A barrier knows no more of a turn than whether it is odd.
  const auto ended = [&] { return (turns.ended & 1U) != (static_cast<unsigned>(turn) & 1U); };
  wait_until([&] { return ended() || (turns.came == turns.threads && turns.bytes == 0); });
  if (ended()) return {};
  turns.came = 0;
  ++turns.ended;
  tell(&Races::end_arrivals, barrier);
  return std::exchange(turns.copies, {});
}

unsigned turns_ended(std::uint64_t* barrier) {
  return turns_of(barrier).ended;
}

void store_later(const BulkCopy& copy) {
  check_copy(copy);
  stores()[dynamic_shared_memory()].push_back(copy);
}

std::vector<BulkCopy> stores_until_now() {
  return std::exchange(stores()[dynamic_shared_memory()], {});
}

}  // namespace dsm::emulation
