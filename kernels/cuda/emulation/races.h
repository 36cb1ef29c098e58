// Accesses of a kernel's threads to the same memory that nothing orders, in programs whose kernels
// are compiled to tell of each (watching.cc). An access is in order after another one if there is a
// way from that one to it, through what CUDA promises to order: barriers of a block, of some of its
// warps, of a warp (__syncwarp) and of a cluster; arrivals and waiting at barriers in shared
// memory; a fence, an atomic operation that another thread's sees, and a fence there. What the
// emulator happens to do first does not count, nor do shuffles, votes and products.
//
// Copies and warpgroups' products (the async proxy) are actors beside the threads: in order once
// somebody has waited for them, and after what threads have written and put a proxy fence behind.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "kernels/cuda/emulation/clocks.h"
#include "kernels/cuda/emulation/shadow.h"

namespace dsm::emulation {

enum class Scope { kBlock, kDevice };
enum class Strong { kRead, kWrite, kUpdate };
// At a barrier in shared memory: what a thread of another block than the barrier's has written is
// in order only if both sides say so.
enum class Reach { kBlock, kCluster };

class Races {
 public:
  struct Kernel {
    std::uint32_t groups = 0;   // that run one after the other
    std::size_t threads = 0;    // of a block
    std::size_t blocks = 0;     // of a group
    std::uintptr_t shared = 0;  // all blocks' dynamic shared memory
    std::size_t shared_bytes = 0;
    std::function<std::string(std::uint32_t group, std::size_t thread)> name;  // of a thread
    std::function<void(const std::string&)> fail;
  };
  void begin_kernel(Kernel kernel);
  void begin_group(std::uint32_t number);
  // Whose calls those are that follow.
  void run_thread(std::size_t thread) { current_ = thread; }

  void access(const void* at, std::size_t bytes, unsigned kind, const void* place);
  void strong(const void* at, std::size_t bytes, Strong what, const void* place);

  // All threads of [first, first + count) have come, of a warp those of the mask.
  void meet(std::size_t first, std::size_t count);
  void meet_lanes(std::size_t first, std::uint32_t lanes);
  void fence(Scope scope);
  void acquire();  // what strong reads have seen is in order before what follows
  void proxy_fence();

  // Barriers in shared memory. `ended`: the arrival was the last of its turn.
  void begin_arrivals(const void* barrier, const void* place);
  void arrive(const void* barrier, bool here, Reach reach, bool ended, const void* place);
  void end_arrivals(const void* barrier);
  void waited(const void* barrier, Reach reach, const void* place);

  // Copies that a barrier counts, of its turn after `ended` ones.
  void copy(void* to, const void* from, std::size_t bytes, const void* barrier, unsigned ended,
            const void* place);
  void waited_for_copies(const void* barrier, unsigned ended, const void* place);
  // Copies of 16 bytes that the thread groups.
  void late_copy(void* to, const void* from, const void* place);
  void end_group_of_copies();
  void waited_for_groups(unsigned left);
  // Copies from shared memory.
  void store(void* to, const void* from, std::size_t bytes, const void* place);
  void waited_for_stores(bool done);
  // A warp's share of a warpgroup's product reads shared memory, by all lanes at the same time.
  void multiply(std::span<const void* const> from, std::size_t bytes, const void* place);
  void end_group_of_products();
  void waited_for_products(unsigned left);

 private:
  struct Thread {
    Known known;
    // What it has waited for beside that: few.
    std::vector<std::pair<std::size_t, std::uint32_t>> own;
    std::uint32_t clock = 1;
    std::vector<std::uint32_t> proxy_fences;        // when
    Known told_device, told_block;                  // with what it writes as a whole
    Known seen_device, seen_block;                  // with what it has read so, before a fence
    unsigned copies = 0, stores = 0, products = 0;  // groups of them
  };
  // At what is read and written as a whole.
  struct Published {
    Known device;
    Known block;
    std::size_t of_block = 0;
    std::uint32_t of_group = 0;
  };
  struct Gate {
    Clocks came, came_far;   // far: as far as a cluster
    Known ended, ended_far;  // of turns that have
  };
  enum class Engine { kBulk, kCopies, kStoreReads, kStoreWrites, kProducts };
  // By whom an access is judged and as whose it is kept.
  struct Access {
    const Clocks* known = nullptr;
    const Thread* thread = nullptr;
    std::size_t self = 0;  // the thread; kNobody: known is all
    std::uint16_t actor = 0;
    std::uint32_t clock = 0;
    unsigned kind = 0;
    const void* place = nullptr;
  };

  Thread& thread() { return threads_[current_]; }
  std::size_t block_of(std::size_t thread) const { return thread / kernel_.threads; }
  std::uint16_t actor(Engine engine, std::uintptr_t of);
  void note_all(Clocks& clocks, const Thread& thread, std::size_t self) const;
  Known all_of(const Thread& thread, std::size_t self) const;
  void learn(std::size_t actor, std::uint32_t clock);
  template <class Each>
  void meet_all(const Each& each);
  Access by_thread(unsigned kind, const void* place);
  Access by_engine(Engine engine, std::uintptr_t of, std::uint32_t clock, unsigned kind,
                   const void* place);
  std::uint32_t known_clock(const Access& access, const Touch& touch, bool read) const;
  bool fenced(const Access& access, const Touch& touch) const;
  void touch(const void* at, std::size_t bytes, const Access& access);
  void touch_cell(Cell& cell, bool shared, std::uintptr_t at, std::size_t bytes,
                  const Access& access);
  std::unique_ptr<Page> watch(std::uintptr_t page) const;
  bool is_shared(std::uintptr_t address) const;
  bool of_kernel(const Touch& touch, bool shared) const {
    return shared ? touch.group == group_ : touch.group - first_group_ < kernel_.groups;
  }
  void report(std::uintptr_t at, std::size_t bytes, bool shared, const Access& access,
              const Touch& other, const char* why) const;
  std::string actor_name(const Touch& touch) const;

  Kernel kernel_;
  std::uint32_t first_group_ = 0;
  std::uint32_t group_ = 0;
  std::size_t current_ = 0;
  std::vector<Thread> threads_;
  std::map<std::pair<Engine, std::uintptr_t>, std::uint16_t> actors_;
  std::unordered_map<const void*, Gate> gates_;
  std::unordered_map<const void*, Published> published_;
  Shadow shadow_;
  unsigned turn_ = 0;  // of a cell's reads
  Clocks common_, lanes_;
};

// Of the kernel that this host thread runs; null: none, or nobody watches it.
extern constinit thread_local Races* watching;
// Whether kernels of this program are compiled to tell of their accesses.
bool kernels_are_watched();

// While one lives, accesses are the emulator's own. Its thread does not wait meanwhile.
class Unwatched {
 public:
  // The compiler, for which nobody reads `watching` meanwhile, has to write it all the same.
  Unwatched() : kept_(std::exchange(watching, nullptr)) { asm volatile("" ::: "memory"); }
  Unwatched(const Unwatched&) = delete;
  Unwatched& operator=(const Unwatched&) = delete;
  ~Unwatched() {
    asm volatile("" ::: "memory");
    watching = kept_;
  }

 private:
  Races* kept_;
};

}  // namespace dsm::emulation
