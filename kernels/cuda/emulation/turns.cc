#include "kernels/cuda/emulation/turns.h"

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace dsm::emulation {
namespace {

struct Turns {
  std::mutex mutex;
  std::condition_variable changed;
  std::uint64_t came = 0;
  std::uint64_t passed = 0;
  std::atomic<int> waiting = 0;
};
Turns& turns() {
  static Turns& turns = *new Turns;
  return turns;
}

}  // namespace

void take_turn() {
  Turns& all = turns();
  std::unique_lock lock(all.mutex);
  const std::uint64_t mine = all.came++;
  all.changed.wait(lock, [&] { return all.passed == mine; });
}

void pass_turn() {
  Turns& all = turns();
  {
    const std::lock_guard lock(all.mutex);
    ++all.passed;
  }
  all.changed.notify_all();
}

void begin_waiting() {
  ++turns().waiting;
}

void end_waiting() {
  --turns().waiting;
}

bool kernels_wait() {
  return turns().waiting > 0;
}

}  // namespace dsm::emulation
