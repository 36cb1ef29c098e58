#include "kernels/cuda/emulation/block.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/cuda/emulation/memory.h"
#include "kernels/cuda/emulation/races.h"
#include "kernels/cuda/emulation/raw_memory.h"
#include "kernels/cuda/emulation/stack.h"
#include "kernels/cuda/emulation/turns.h"

uint3 threadIdx;
uint3 blockIdx;
dim3 blockDim;
dim3 gridDim;

// The section of all shared variables (cuda_runtime.h), named by the linker.
extern "C" {
[[gnu::weak]] extern char __start_dsm_shared[];
[[gnu::weak]] extern char __stop_dsm_shared[];
}

namespace dsm::emulation {
namespace {

constexpr std::size_t kMostSharedBytes = 227 << 10;
constexpr std::size_t kStacks = 1024;
constexpr std::size_t kNumbers = 16;  // of barriers

struct Meeting {
  unsigned lanes = 0;
  unsigned arrived = 0;
  WarpAction action = nullptr;
  void* mine[32] = {};
};

struct Thread {
  void* stack = nullptr;  // where it stands
  uint3 block = {};
  uint3 index = {};
  std::vector<LateCopy> copies;
  std::vector<std::size_t> groups;  // where each ended one ends in copies
};

// Where threads of a block meet.
struct Barrier {
  std::size_t arrived = 0;
  int sum = 0;
  int result = 0;
};

// A block or, side by side, those of a cluster: then threads are numbered through them.
class Block {
 public:
  Block() : dynamic_(kMostTogether * kMostSharedBytes), threads_(kMostThreadsTogether) {
    ready_.reserve(kMostThreadsTogether);
    if (__asan_poison_memory_region != nullptr) {
      __asan_poison_memory_region(dynamic_.data(), dynamic_.size());
    }
  }

  void run(const KernelCall& call);
  int barrier(int value);
  void barrier_of_first(int number, int threads);
  void cluster_barrier();
  unsigned block_of_cluster() const { return static_cast<unsigned>(current_ / count_); }
  void* shared_of_block(void* shared, unsigned block);
  void wait_until(const std::function<bool()>& ready);
  void meet(unsigned lanes, WarpAction action, void* mine);
  void let_others_run();
  // The kernel has ended.
  void end_waiting() {
    if (std::exchange(let_others_run_, false)) emulation::end_waiting();
  }
  Thread& current() { return threads_[current_]; }
  void* dynamic_shared_memory() { return shared_of(block_of_cluster()); }
  [[noreturn]] void fail(const std::string& what) const;

 private:
  static void entry();
  void run_blocks(const uint3& first);
  char* shared_of(std::size_t block) { return dynamic_.data() + block * kMostSharedBytes; }
  std::size_t all() const { return count_ * call_->cluster; }
  // One of `count` threads from `first` on comes to a barrier, and goes on when all have.
  void meet_at(Barrier& at, std::size_t first, std::size_t count, int value);
  void check_shared_variables() const;
  void begin_watching();
  // Goes on with a thread that can; there is one, or `current` waits for ever.
  void switch_to_next();
  void resume(std::size_t thread, void** from);
  void end_thread();
  void pass_turn();
  Meeting& meeting_of(std::vector<Meeting>& meetings, unsigned lanes, WarpAction action);
  void wake(std::size_t thread) { ready_.push_back(thread); }
  // Mixes ready_ from `begin` on.
  void shuffle(std::size_t begin);
  std::uint32_t random() {
    random_ ^= random_ << 13;
    random_ ^= random_ >> 17;
    random_ ^= random_ << 5;
    return random_;
  }

  std::deque<Stacks> stacks_;  // each of kStacks threads; no more than were ever needed
  std::vector<char> dynamic_;
  const KernelCall* call_ = nullptr;
  void* host_ = nullptr;   // where the stack of run() stands
  std::size_t count_ = 0;  // threads of a block
  std::size_t live_ = 0;
  std::vector<Thread> threads_;
  std::size_t current_ = 0;
  std::vector<std::size_t> ready_;  // the last goes first
  std::size_t waits_ = 0;           // since the turn was passed
  bool let_others_run_ = false;     // this kernel, once
  std::size_t in_vain_ = 0;         // looks of wait_until() since anything came about
  std::array<Barrier, kMostTogether> barriers_;
  std::array<std::array<Barrier, kNumbers>, kMostTogether> numbered_;
  Barrier cluster_;
  std::array<std::vector<Meeting>, kMostThreadsTogether / 32> meetings_;  // of each warp
  std::uint32_t random_ = 0x9e3779b9U;
  std::unique_ptr<Races> races_;  // null: nobody tells of accesses
};

// Whose turn it is; null: nobody's. Those whose kernels have ended are used again. They stay for
// good: stacks outlive whoever still runs at the end.
Block* running = nullptr;
std::vector<Block*>& idle_blocks() {
  static auto& idle = *new std::vector<Block*>;
  return idle;
}
Block& block() {
  return *running;
}

// Whether nobody has written the program's shared variables since they were filled.
bool variables_are_unwritten = false;

// Many bytes together: a program's shared variables are tens of KiB, and they are looked at after
// each block.
bool is_unwritten(std::span<const char> memory) {
  static_assert(kUnwritten == 0xff);
  constexpr std::size_t kTogether = 64;
  std::size_t at = 0;
  for (; at + kTogether <= memory.size(); at += kTogether) {
    std::array<std::uint64_t, kTogether / sizeof(std::uint64_t)> words;
    std::memcpy(words.data(), memory.data() + at, kTogether);
    std::uint64_t all = ~std::uint64_t{0};
    for (const std::uint64_t word : words) all &= word;
    if (all != ~std::uint64_t{0}) return false;
  }
  return std::ranges::all_of(memory.subspan(at),
                             [](char byte) { return byte == static_cast<char>(kUnwritten); });
}

std::string name_of(const void* function) {
  char name[512] = "";
  if (__sanitizer_symbolize_pc != nullptr) {
    // It is asked for return addresses, and looks at what is before them.
    auto* pc = const_cast<char*>(static_cast<const char*>(function)) + 1;
    __sanitizer_symbolize_pc(pc, "%f", name, sizeof name);
  }
  if (name[0] == '\0') std::snprintf(name, sizeof name, "at %p", function);
  return name;
}

std::string text(const char* what, const uint3& at) {
  return std::string(what) + " (" + std::to_string(at.x) + ", " + std::to_string(at.y) + ", " +
         std::to_string(at.z) + ")";
}

void Block::fail(const std::string& what) const {
  std::fprintf(stderr, "emulated GPU: kernel %s, %s, %s: %s\n", name_of(call_->function).c_str(),
               text("block", blockIdx).c_str(), text("thread", threadIdx).c_str(), what.c_str());
  std::abort();
}

void Block::run(const KernelCall& call) {
  call_ = &call;
  gridDim = call.grid;
  blockDim = call.block;
  count_ = std::size_t{call.block.x} * call.block.y * call.block.z;
  if (call.cluster > kMostTogether || all() > kMostThreadsTogether) {
    fail("more blocks side by side than there is room for");
  }
  if (__asan_unpoison_memory_region != nullptr) {
    for (unsigned b = 0; b < call.cluster; ++b) {
      __asan_unpoison_memory_region(shared_of(b), call.shared_bytes);
    }
  }
  if (kernels_are_watched()) begin_watching();
  for (unsigned z = 0; z < call.grid.z; ++z) {
    for (unsigned y = 0; y < call.grid.y; y += call.cluster) {
      for (unsigned x = 0; x < call.grid.x; ++x) run_blocks({x, y, z});
    }
  }
  if (__asan_poison_memory_region != nullptr) {
    for (unsigned b = 0; b < call.cluster; ++b) {
      __asan_poison_memory_region(shared_of(b), call.shared_bytes);
    }
  }
}

void Block::begin_watching() {
  if (races_ == nullptr) races_ = std::make_unique<Races>();
  const auto place = [this](std::uint32_t group, std::size_t thread) {
    const dim3& grid = call_->grid;
    const unsigned across = grid.y / call_->cluster;
    const auto i = static_cast<unsigned>(thread % count_);
    const auto block = static_cast<unsigned>(thread / count_);
    return text("thread", {i, 0, 0}) + " of " +
           text("block", {group % grid.x, group / grid.x % across * call_->cluster + block,
                          group / grid.x / across});
  };
  races_->begin_kernel({.groups = call_->grid.x * (call_->grid.y / call_->cluster) * call_->grid.z,
                        .threads = count_,
                        .blocks = call_->cluster,
                        .shared = reinterpret_cast<std::uintptr_t>(dynamic_.data()),
                        .shared_bytes = call_->cluster * kMostSharedBytes,
                        .name = place,
                        .fail = [this](const std::string& what) { fail(what); }});
}

std::span<char> shared_variables() {
  return {__start_dsm_shared, __stop_dsm_shared};
}

void Block::run_blocks(const uint3& first_block) {
  for (unsigned b = 0; b < call_->cluster; ++b) {
    raw_fill(shared_of(b), kUnwritten, call_->shared_bytes);
  }
  if (!std::exchange(variables_are_unwritten, false)) {
    raw_fill(shared_variables().data(), kUnwritten, shared_variables().size());
  }
  if (races_ != nullptr) {
    races_->begin_group(
        (first_block.z * (gridDim.y / call_->cluster) + first_block.y / call_->cluster) *
            gridDim.x +
        first_block.x);
    watching = races_.get();
  }
  live_ = all();
  in_vain_ = 0;
  ready_.clear();
  for (std::size_t t = 0; t < all(); ++t) {
    const auto i = static_cast<unsigned>(t % count_);
    if (t / kStacks == stacks_.size()) stacks_.emplace_back(kStacks);
    threads_[t].stack = stacks_[t / kStacks].start(t % kStacks, entry);
    threads_[t].block = first_block;
    threads_[t].block.y += static_cast<unsigned>(t / count_);
    threads_[t].index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
    threads_[t].copies.clear();
    threads_[t].groups.clear();
    wake(t);
  }
  shuffle(0);
  const std::size_t first = ready_.back();
  ready_.pop_back();
  resume(first, &host_);
  watching = nullptr;
  if (call_->shared_bytes > 0 || call_->cluster > 1) check_shared_variables();
}

// Beside dynamic memory what a launch asks for would be less than what the kernel takes, and blocks
// that run side by side would share them.
void Block::check_shared_variables() const {
  if (!is_unwritten(shared_variables())) {
    fail("it has shared variables beside dynamic shared memory, or in a cluster");
  }
  variables_are_unwritten = true;
}

void Block::shuffle(std::size_t begin) {
  for (std::size_t left = ready_.size() - begin; left > 1; --left) {
    std::swap(ready_[begin + left - 1], ready_[begin + random() % left]);
  }
}

void Block::resume(std::size_t thread, void** from) {
  current_ = thread;
  blockIdx = threads_[thread].block;
  threadIdx = threads_[thread].index;
  if (races_ != nullptr) races_->run_thread(thread);
  dsm_switch_stack(from, threads_[thread].stack);
}

void Block::switch_to_next() {
  if (ready_.empty()) {
    std::size_t in_warps = 0;
    for (const auto& meetings : meetings_) {
      for (const Meeting& m : meetings) in_warps += static_cast<unsigned>(std::popcount(m.arrived));
    }
    std::size_t at_barriers = cluster_.arrived;
    for (const Barrier& barrier : barriers_) at_barriers += barrier.arrived;
    for (const auto& numbered : numbered_) {
      for (const Barrier& barrier : numbered) at_barriers += barrier.arrived;
    }
    fail("threads wait for others that do not come: of " + std::to_string(all()) + " " +
         std::to_string(at_barriers) + " stand at a barrier of the block, " +
         std::to_string(in_warps) + " at one of their warp, " + std::to_string(all() - live_) +
         " have ended");
  }
  const std::size_t from = current_;
  const std::size_t next = ready_.back();
  ready_.pop_back();
  resume(next, &threads_[from].stack);
}

void Block::let_others_run() {
  if (++waits_ >= live_) {
    waits_ = 0;
    pass_turn();
  }
  if (ready_.empty()) return;
  ready_.insert(ready_.begin(), current_);
  switch_to_next();
}

void Block::wait_until(const std::function<bool()>& ready) {
  while (!ready()) {
    // Others look in vain, too, or run until they wait for something else.
    if (++in_vain_ > 4 * all() || ready_.empty()) {
      fail("threads wait for what nobody brings about");
    }
    ready_.insert(ready_.begin(), current_);
    switch_to_next();
  }
  in_vain_ = 0;
}

void Block::pass_turn() {
  if (!std::exchange(let_others_run_, true)) begin_waiting();
  emulation::pass_turn();
  std::this_thread::yield();  // to a host thread that does not run a kernel yet
  take_turn();
  running = this;
  gridDim = call_->grid;
  blockDim = call_->block;
  blockIdx = threads_[current_].block;
  threadIdx = threads_[current_].index;
}

void Block::entry() {
  Block& self = block();
  self.call_->body();
  self.end_thread();
}

void Block::end_thread() {
  in_vain_ = 0;
  if (--live_ == 0) {
    dsm_switch_stack(&threads_[current_].stack, host_);
  }
  switch_to_next();
  std::abort();  // nobody comes back to a thread that has ended
}

void Block::meet_at(Barrier& at, std::size_t first, std::size_t count, int value) {
  in_vain_ = 0;
  at.sum += value;
  if (++at.arrived < count) {
    switch_to_next();
    return;
  }
  at = {.result = at.sum};
  if (races_ != nullptr) races_->meet(first, count);
  const std::size_t begin = ready_.size();
  for (std::size_t t = first; t < first + count; ++t) {
    if (t != current_) wake(t);
  }
  shuffle(begin);
}

int Block::barrier(int value) {
  const std::size_t block = current_ / count_;
  meet_at(barriers_[block], block * count_, count_, value);
  return barriers_[block].result;
}

void Block::barrier_of_first(int number, int threads) {
  const std::size_t block = current_ / count_;
  const auto count = static_cast<std::size_t>(threads);
  if (number < 1 || static_cast<std::size_t>(number) >= kNumbers || count > count_ ||
      current_ % count_ >= count) {
    fail("a barrier that the thread is not one of");
  }
  meet_at(numbered_[block][static_cast<std::size_t>(number)], block * count_, count, 0);
}

void Block::cluster_barrier() {
  meet_at(cluster_, 0, all(), 0);
}

void* Block::shared_of_block(void* shared, unsigned block) {
  return shared_of(block) + (static_cast<char*>(shared) - shared_of(block_of_cluster()));
}

Meeting& Block::meeting_of(std::vector<Meeting>& meetings, unsigned lanes, WarpAction action) {
  for (Meeting& m : meetings) {
    if (m.lanes == lanes && m.action == action) return m;
    if ((m.lanes & lanes) != 0) fail("lanes of a warp meet at different operations or masks");
  }
  return meetings.emplace_back(Meeting{.lanes = lanes, .action = action});
}

void Block::meet(unsigned lanes, WarpAction action, void* mine) {
  const std::size_t first = current_ / 32 * 32;
  const auto lane = static_cast<unsigned>(current_ % 32);
  if (all() - first < 32) lanes &= (1U << (all() - first)) - 1;
  if ((lanes >> lane & 1U) == 0) fail("a lane is not in the mask that it gives");
  auto& meetings = meetings_[current_ / 32];
  Meeting& m = meeting_of(meetings, lanes, action);
  in_vain_ = 0;
  m.mine[lane] = mine;
  m.arrived |= 1U << lane;
  if (m.arrived != lanes) {
    switch_to_next();
    return;
  }
  action(m.mine, lanes);
  if (action == only_wait && races_ != nullptr) races_->meet_lanes(first, lanes);
  const bool rising = random() % 2 == 0;
  for (unsigned i = 0; i < 32; ++i) {
    const unsigned other = rising ? i : 31 - i;
    if (other != lane && (lanes >> other & 1U) != 0) wake(first + other);
  }
  m = meetings.back();
  meetings.pop_back();
}

}  // namespace

void run(const KernelCall& call) {
  take_turn();
  if (idle_blocks().empty()) idle_blocks().push_back(new Block);
  Block* const mine = idle_blocks().back();
  idle_blocks().pop_back();
  running = mine;
  {
    const DeviceAccess access;
    mine->run(call);
    mine->end_waiting();
  }
  idle_blocks().push_back(mine);
  running = nullptr;
  pass_turn();
}

void fail(const std::string& what) {
  block().fail(what);
}

int barrier(int value) {
  return block().barrier(value);
}

void only_wait(void* const (&)[32], unsigned) {}

void meet(unsigned lanes, WarpAction action, void* mine) {
  block().meet(lanes, action, mine);
}

void let_others_run() {
  block().let_others_run();
}

void barrier_of_first(int number, int threads) {
  block().barrier_of_first(number, threads);
}

unsigned block_of_cluster() {
  return block().block_of_cluster();
}

void cluster_barrier() {
  block().cluster_barrier();
}

void* shared_of_block(void* shared, unsigned block_number) {
  return block().shared_of_block(shared, block_number);
}

void wait_until(const std::function<bool()>& ready) {
  block().wait_until(ready);
}

void* dynamic_shared_memory() {
  return block().dynamic_shared_memory();
}

void copy_later(void* to, const void* from) {
  block().current().copies.push_back({to, from});
}

void end_group_of_copies() {
  Thread& thread = block().current();
  thread.groups.push_back(thread.copies.size());
}

std::span<const LateCopy> copies_until(int left) {
  static std::vector<LateCopy> taken;
  taken.clear();
  Thread& thread = block().current();
  const auto keep = static_cast<std::size_t>(left);
  if (thread.groups.size() <= keep) return taken;
  const auto last = thread.groups.end() - left - 1;
  const std::size_t count = *last;
  const auto end = thread.copies.begin() + static_cast<std::ptrdiff_t>(count);
  taken.assign(thread.copies.begin(), end);
  thread.copies.erase(thread.copies.begin(), end);
  thread.groups.erase(thread.groups.begin(), last + 1);
  for (std::size_t& group : thread.groups) group -= count;
  return taken;
}

}  // namespace dsm::emulation
