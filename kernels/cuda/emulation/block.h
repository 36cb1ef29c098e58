// A thread block on one CPU thread: each of its threads has a stack of its own and runs until it
// waits for others, in an order that differs from block to block. So what a kernel leaves to chance
// shows sooner or later, always in the same run of a test.
//
// Calls are those of a running kernel's threads, but run(). What a kernel may not do ends the
// process with a message that names the kernel.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <functional>
#include <span>
#include <string>

namespace dsm::emulation {

struct KernelCall {
  const void* function = nullptr;
  dim3 grid;
  dim3 block;
  std::size_t shared_bytes = 0;  // dynamic
  std::function<void()> body;    // of a thread
  unsigned cluster = 1;          // blocks in y that run side by side
};
// Of at most so many threads and shared memory together: two blocks for each of the processors that
// runtime.cc tells of.
inline constexpr unsigned kMostTogether = 16;
inline constexpr std::size_t kMostThreadsTogether = 4096;
// All clusters of blocks, one after the other. Of several host threads one runs a kernel at a time,
// until that lets the others run.
void run(const KernelCall& call);

// Waits for the first `threads` of the block, at barrier `number` of 15.
void barrier_of_first(int number, int threads);

// The number of the thread's block in its cluster, and how all threads of a cluster meet.
unsigned block_of_cluster();
void cluster_barrier();
// What stands at the place of `shared`, in dynamic shared memory, in a block of the cluster.
void* shared_of_block(void* shared, unsigned block);
// Until `ready` says so, which some other thread of the cluster brings about.
void wait_until(const std::function<bool()>& ready);

// For a thread that waits for another kernel: the block's other threads go on, and when all wait,
// kernels of other host threads do. Shared variables hold nothing afterwards.
void let_others_run();

[[noreturn]] void fail(const std::string& what);

// Waits for all threads of the block; the sum of what they give.
int barrier(int value);

// Waits for the lanes of a warp that are bits of `lanes`; the last one to come calls `action` with
// what each of them has brought. All of them bring the same action.
using WarpAction = void (*)(void* const (&mine)[32], unsigned lanes);
void meet(unsigned lanes, WarpAction action, void* mine);
// The action of __syncwarp(): the only one that orders what the lanes do to memory.
void only_wait(void* const (&mine)[32], unsigned lanes);

void* dynamic_shared_memory();

// Copies to shared memory that wait, in groups, until their thread wants them.
struct LateCopy {
  void* to = nullptr;
  const void* from = nullptr;  // null: zeros
};
void copy_later(void* to, const void* from);
void end_group_of_copies();
// The copies of all ended groups but the last `left`, which are taken out; valid until the next
// call.
std::span<const LateCopy> copies_until(int left);

}  // namespace dsm::emulation
