// Kernels with a race each, beside the same without it: what nothing orders is named, in whatever
// order the emulator runs the threads.
#include <gtest/gtest.h>

#include <cstdint>
#include <string>

#include "kernels/cuda/grid_barrier.cuh"
#include "kernels/cuda/last_block.cuh"

namespace dsm::kernels::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kBlocks = 3;
constexpr int kWords = 4096;

// A test's memory, whose words are zero.
class Memory {
 public:
  Memory() {
    void* memory = nullptr;
    EXPECT_EQ(cudaMalloc(&memory, kBytes), cudaSuccess);
    words_ = static_cast<int*>(memory);
    cudaMemsetAsync(words_, 0, kBytes, nullptr);
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() {
    EXPECT_EQ(cudaGetLastError(), cudaSuccess);
    cudaStreamSynchronize(nullptr);
    cudaFree(words_);
  }
  int* words() { return words_; }

 private:
  static constexpr std::size_t kBytes = kWords * sizeof(int);
  int* words_ = nullptr;
};

using Kernel = void (*)(int* words, bool right);

void run(Kernel kernel, int blocks, bool right) {
  Memory memory;
  launch(kernel, blocks, kThreads, 0, nullptr, memory.words(), right);
}
void run_with_shared(Kernel kernel, bool right) {
  Memory memory;
  launch(kernel, 1, kThreads, 16 << 10, nullptr, memory.words(), right);
}
void run_clusters(Kernel kernel, bool right) {
  Memory memory;
  launch_clusters(2, kernel, dim3(1, 2), kThreads, 4096, nullptr, memory.words(), right);
}
void run_together(Kernel kernel, bool right) {
  Memory memory;
  launch_together(kBlocks, kernel, kThreads, 0, nullptr, memory.words(), right);
}

// Both threads and both places, which this file's name has to be in.
std::string race(const std::string& kernel, const std::string& one, const std::string& other,
                 const std::string& why = "nothing orders them") {
  return kernel + ".*a race: " + one + ".*races_test.cu:.* and " + other + ".*races_test.cu:.*" +
         why;
}

// Thread 40 reads nothing that others write, and the others write the value that was there: so all
// orders give the same.
__global__ void missing_barrier_kernel(int* words, bool right) {
  __shared__ int value;
  if (threadIdx.x == 40) value = -1;  // all bits, as shared memory has at first
  if (right) __syncthreads();
  words[blockIdx.x * kThreads + threadIdx.x] = value;
}

TEST(RacesDeathTest, AMissingBarrier) {
  run(missing_barrier_kernel, kBlocks, true);
  EXPECT_DEATH(run(missing_barrier_kernel, 1, false),
               race("missing_barrier_kernel", "thread \\(.*of block \\(0, 0, 0\\)", "thread"));
}

__global__ void missing_warp_barrier_kernel(int* words, bool right) {
  __shared__ int values[kThreads];
  values[threadIdx.x] = -1;
  if (right) __syncwarp();
  // Orders no memory, though all lanes come to it.
  const int lane = __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) ^ 1, threadIdx.x % 32);
  words[threadIdx.x] = values[lane];
}

TEST(RacesDeathTest, AMissingWarpBarrier) {
  run(missing_warp_barrier_kernel, 1, true);
  EXPECT_DEATH(run(missing_warp_barrier_kernel, 1, false),
               race("missing_warp_barrier_kernel", "thread", "thread"));
}

// A barrier of some warps is none of the others.
__global__ void barrier_of_few_kernel(int* words, bool right) {
  __shared__ int values[kThreads];
  values[threadIdx.x] = -1;
  if (right) {
    __syncthreads();
  } else if (threadIdx.x < 64) {
    barrier_of_first(1, 64);
  }
  if (threadIdx.x < 64) words[threadIdx.x] = values[threadIdx.x ^ (right ? 64 : 32)];
  if (threadIdx.x == 0) words[0] = values[right ? 65 : 64];
}

TEST(RacesDeathTest, ABarrierOfOtherWarps) {
  run(barrier_of_few_kernel, 1, true);
  EXPECT_DEATH(run(barrier_of_few_kernel, 1, false),
               race("barrier_of_few_kernel", "thread", "thread"));
}

// What is read is written over in the next turn.
__global__ void read_too_late_kernel(int* words, bool right) {
  __shared__ int value;
  for (int turn = 0; turn < 2; ++turn) {
    if (threadIdx.x == 0) value = -1;
    __syncthreads();
    words[threadIdx.x] = value;
    if (right) __syncthreads();
  }
}

TEST(RacesDeathTest, MemoryThatIsUsedAgainBeforeAllHaveRead) {
  run(read_too_late_kernel, 1, true);
  EXPECT_DEATH(run(read_too_late_kernel, 1, false),
               race("read_too_late_kernel", "thread \\(0, 0, 0\\).*writes", "thread.*reads"));
}

__global__ void same_word_kernel(int* words, bool right) {
  if (threadIdx.x == 0) words[right ? blockIdx.x : 0] = 5;
}

TEST(RacesDeathTest, TwoBlocksThatWriteTheSameWord) {
  run(same_word_kernel, kBlocks, true);
  EXPECT_DEATH(run(same_word_kernel, kBlocks, false),
               race("same_word_kernel", "thread \\(0, 0, 0\\) of block \\(1, 0, 0\\)",
                    "thread \\(0, 0, 0\\) of block \\(0, 0, 0\\)"));
}

// Bytes beside each other are not the same memory.
__global__ void bytes_kernel(int* words, bool right) {
  auto* const bytes = reinterpret_cast<unsigned char*>(words);
  bytes[right ? threadIdx.x : threadIdx.x / 2] = 1;
}

TEST(RacesDeathTest, BytesHaveTheirOwnWriters) {
  run(bytes_kernel, 1, true);
  EXPECT_DEATH(run(bytes_kernel, 1, false), race("bytes_kernel", "thread", "thread"));
}

__global__ void last_block_kernel(int* words, bool right) {
  __shared__ bool last;
  auto* const met = reinterpret_cast<std::uint32_t*>(words);
  int* const parts = words + 1;
  parts[blockIdx.x * kThreads + threadIdx.x] = 1;
  if (right) {
    if (!last_to_meet(met, kBlocks, last)) return;
  } else {  // without fences
    __syncthreads();
    if (threadIdx.x == 0) last = atomicAdd(met, 1U) + 1 == kBlocks;
    __syncthreads();
    if (!last) return;
  }
  int sum = 0;
  for (int b = 0; b < kBlocks; ++b) sum += parts[b * kThreads + threadIdx.x];
  words[1 + kBlocks * kThreads + threadIdx.x] = sum;
}

TEST(RacesDeathTest, MissingFencesAroundTheCounterOfBlocks) {
  run(last_block_kernel, kBlocks, true);
  EXPECT_DEATH(run(last_block_kernel, kBlocks, false),
               race("last_block_kernel", "thread.*block \\(2, 0, 0\\)", "thread.*block \\("));
}

__global__ void grid_kernel(int* words, bool right) {
  GridBarrier barrier(reinterpret_cast<std::uint32_t*>(words));
  int* const values = words + 1;
  values[blockIdx.y * kThreads + threadIdx.x] = 0;
  if (right) {
    barrier.arrive();
    barrier.wait();
  } else {
    __syncthreads();
  }
  words[1 + (kBlocks + blockIdx.y) * kThreads + threadIdx.x] =
      values[(blockIdx.y + 1) % kBlocks * kThreads + threadIdx.x];
}

TEST(RacesDeathTest, AMissingBarrierOfTheGrid) {
  run_together(grid_kernel, true);
  EXPECT_DEATH(run_together(grid_kernel, false), race("grid_kernel", "thread", "thread"));
}

// A fence of the block orders nothing for other blocks.
__global__ void small_fence_kernel(int* words, bool right) {
  if (threadIdx.x != 0) return;
  words[1 + blockIdx.x] = 1;
  if (right) {
    __threadfence();
  } else {
    __threadfence_block();
  }
  const int before = atomicAdd(words, 1);
  __threadfence();
  if (before > 0) words[100 + blockIdx.x] = words[1];
}

TEST(RacesDeathTest, AFenceThatDoesNotReachOtherBlocks) {
  run(small_fence_kernel, 2, true);
  EXPECT_DEATH(run(small_fence_kernel, 2, false), race("small_fence_kernel", "thread", "thread"));
}

// An atomic operation beside a plain write.
__global__ void torn_kernel(int* words, bool right) {
  if (threadIdx.x != 0) return;
  if (right || blockIdx.x != 1) {
    atomicAdd(words, 1);
  } else {
    words[0] = 1;
  }
}

TEST(RacesDeathTest, APlainWriteBesideAtomicOnes) {
  run(torn_kernel, kBlocks, true);
  EXPECT_DEATH(run(torn_kernel, kBlocks, false), race("torn_kernel", "thread", "thread.*updates"));
}

// Thread 0 waits for its copy, the others do not.
__global__ void late_copy_kernel(int* words, bool right) {
  auto* const mine = dynamic_shared<int>() + threadIdx.x * 4;
  cp_async_16(mine, words);
  cp_async_commit();
  if (right) cp_async_wait<0>();
  __syncthreads();
  words[kThreads + threadIdx.x] = dynamic_shared<int>()[(threadIdx.x ^ 1) * 4];
  cp_async_wait<0>();
}

TEST(RacesDeathTest, ACopyThatNobodyHasWaitedFor) {
  run_with_shared(late_copy_kernel, true);
  EXPECT_DEATH(run_with_shared(late_copy_kernel, false),
               race("late_copy_kernel", "thread", "a copy \\(cp.async\\) for thread"));
}

// The first warp copies stages, of which the others read.
struct Stages {
  int* first;
  std::uint64_t* filled;
  std::uint64_t* read;

  static __device__ Stages make() {
    auto* const at = dynamic_shared<unsigned char>();
    return {reinterpret_cast<int*>(at), reinterpret_cast<std::uint64_t*>(at + 1024),
            reinterpret_cast<std::uint64_t*>(at + 1032)};
  }
  __device__ void begin() const {
    if (threadIdx.x == 0) {
      copies_begin(filled, 1);
      arrivals_begin(read, kThreads - 32);
    }
  }
  __device__ void ask(const int* from) const {
    copies_expect(filled, 512);
    copy_bytes(first, from, 512, filled);
  }
};

__global__ void missing_wait_kernel(int* words, bool right) {
  const Stages stages = Stages::make();
  stages.begin();
  __syncthreads();
  if (threadIdx.x == 0) stages.ask(words);
  // One lane's waiting is not the others'.
  if (right || threadIdx.x % 32 == 0) copies_wait(stages.filled, 0);
  words[kThreads + threadIdx.x] = stages.first[threadIdx.x];
}

TEST(RacesDeathTest, ABulkCopyThatAThreadHasNotWaitedFor) {
  run_with_shared(missing_wait_kernel, true);
  EXPECT_DEATH(run_with_shared(missing_wait_kernel, false),
               "missing_wait_kernel.*a race: .*a bulk copy to shared memory.*nothing orders them");
}

__global__ void early_barrier_kernel(int*, bool right) {
  const Stages stages = Stages::make();
  stages.begin();
  if (right) __syncthreads();
  if (threadIdx.x >= 32) arrive(stages.read, 0);
}

TEST(RacesDeathTest, ABarrierThatIsUsedBeforeItIsBegun) {
  run_with_shared(early_barrier_kernel, true);
  // Whoever comes first: the barrier is not there, or it is written over.
  EXPECT_DEATH(run_with_shared(early_barrier_kernel, false), "early_barrier_kernel");
}

__global__ void stage_kernel(int* words, bool right) {
  const Stages stages = Stages::make();
  stages.begin();
  __syncthreads();
  for (int turn = 0; turn < 3; ++turn) {
    if (threadIdx.x == 0) {
      if (turn > 0) arrivals_wait(stages.read, turn - 1);
      stages.ask(words);
    }
    copies_wait(stages.filled, turn);
    if (threadIdx.x < 32) continue;
    if (!right) arrive(stages.read, 0);
    words[kThreads + threadIdx.x] = stages.first[threadIdx.x];
    if (right) arrive(stages.read, 0);
  }
}

TEST(RacesDeathTest, AStageThatIsCopiedOverBeforeAllHaveRead) {
  run_with_shared(stage_kernel, true);
  EXPECT_DEATH(run_with_shared(stage_kernel, false),
               "stage_kernel.*a race: .*a bulk copy to shared memory.*nothing orders them");
}

// Rows that threads write and a warpgroup multiplies.
__global__ void product_kernel(int* words, bool right) {
  auto* const rows = dynamic_shared<int>();
  int* const first = rows + (1024 - reinterpret_cast<std::uintptr_t>(rows) % 1024) % 1024 / 4;
  for (int i = static_cast<int>(threadIdx.x); i < 64 * 32; i += kThreads) first[i] = 0;
  if (right) copies_see_shared();
  __syncthreads();
  float d[32] = {};
  const std::uint32_t a[4] = {};
  wgmma_bf16(d, a, shared_rows(first), 0);
  wgmma_commit();
  wgmma_wait<0>();
  words[threadIdx.x] = static_cast<int>(d[0]);
}

TEST(RacesDeathTest, ProductsOfWhatThreadsWroteWithoutAProxyFence) {
  run_with_shared(product_kernel, true);
  EXPECT_DEATH(run_with_shared(product_kernel, false),
               race("product_kernel", "a warpgroup's product reads", "thread.*writes",
                    "no proxy fence of the thread that wrote"));
}

// Rows that are written again while they may still be multiplied.
__global__ void product_in_flight_kernel(int* words, bool right) {
  auto* const rows = dynamic_shared<int>();
  int* const first = rows + (1024 - reinterpret_cast<std::uintptr_t>(rows) % 1024) % 1024 / 4;
  for (int i = static_cast<int>(threadIdx.x); i < 64 * 32; i += kThreads) first[i] = 0;
  copies_see_shared();
  __syncthreads();
  float d[32] = {};
  const std::uint32_t a[4] = {};
  wgmma_bf16(d, a, shared_rows(first), 0);
  wgmma_commit();
  if (right) wgmma_wait<0>();
  __syncthreads();
  first[threadIdx.x] = 0;
  wgmma_wait<0>();
  words[threadIdx.x] = static_cast<int>(d[0]);
}

TEST(RacesDeathTest, RowsThatAreWrittenWhileTheyAreMultiplied) {
  run_with_shared(product_in_flight_kernel, true);
  EXPECT_DEATH(run_with_shared(product_in_flight_kernel, false),
               race("product_in_flight_kernel", "thread.*writes", "a warpgroup's product reads"));
}

__global__ void copy_out_kernel(int* words, int forgets) {
  auto* const mine = dynamic_shared<int>();
  mine[threadIdx.x] = 1;
  if (forgets != 1) copies_see_shared();
  if (forgets != 2) __syncthreads();
  if (threadIdx.x == 0) {
    store_bytes(words, mine, kThreads * 4);
    if (forgets != 3) stores_have_read();
  }
  __syncthreads();
  mine[threadIdx.x] = 2;
  if (threadIdx.x == 0) stores_are_done();
}
void copy_out(int forgets) {
  Memory memory;
  launch(copy_out_kernel, 1, kThreads, 4096, nullptr, memory.words(), forgets);
}

TEST(RacesDeathTest, ABulkCopyOfWhatThreadsWrite) {
  copy_out(0);
  EXPECT_DEATH(copy_out(1), race("copy_out_kernel", "a bulk copy from shared memory reads",
                                 "thread.*writes", "no proxy fence"));
  EXPECT_DEATH(copy_out(2), race("copy_out_kernel", ".*", ".*"));
  EXPECT_DEATH(copy_out(3),
               race("copy_out_kernel", "thread.*writes", "a bulk copy from shared memory reads"));
}

// Values for the other block, which an arrival that is a promise to its own block does not show.
__global__ void far_stores_kernel(int* words, bool right) {
  auto* const values = dynamic_shared<float>();
  auto* const came = reinterpret_cast<std::uint64_t*>(values + kThreads);
  if (threadIdx.x == 0) arrivals_begin(came, kThreads);
  cluster_barrier();
  const int other = 1 - block_of_cluster();
  store_in_block(values + threadIdx.x, other, 1.0F);
  if (right) {
    arrive_with_stores(came, other);
    stores_wait(came, 0);
  } else {
    arrive(came, other);
    arrivals_wait(came, 0);
  }
  words[blockIdx.y * kThreads + threadIdx.x] = static_cast<int>(values[threadIdx.x ^ 1]);
  cluster_barrier();
}

TEST(RacesDeathTest, StoresToAnotherBlockThatNoArrivalShows) {
  run_clusters(far_stores_kernel, true);
  EXPECT_DEATH(run_clusters(far_stores_kernel, false),
               race("far_stores_kernel", "thread.*reads", "thread.*writes"));
}

// That it has read, it does show.
__global__ void far_reads_kernel(int* words, bool right) {
  auto* const values = dynamic_shared<float>();
  auto* const read = reinterpret_cast<std::uint64_t*>(values + kThreads);
  if (threadIdx.x == 0) arrivals_begin(read, kThreads);
  values[threadIdx.x] = 1.0F;
  cluster_barrier();
  const int other = 1 - block_of_cluster();
  words[blockIdx.y * kThreads + threadIdx.x] = static_cast<int>(values[threadIdx.x ^ 1]);
  arrive(read, other);
  if (right) arrivals_wait(read, 0);
  store_in_block(values + threadIdx.x, other, 2.0F);
  cluster_barrier();
}

TEST(RacesDeathTest, StoresToAnotherBlockThatHasNotRead) {
  run_clusters(far_reads_kernel, true);
  EXPECT_DEATH(run_clusters(far_reads_kernel, false), race("far_reads_kernel", "thread", "thread"));
}

// Through a cache that does not see what the kernel writes.
__global__ void constant_kernel(int* words, bool right) {
  words[threadIdx.x] = 1;
  __syncthreads();
  words[kThreads + threadIdx.x] = right ? words[threadIdx.x ^ 1] : __ldg(words + (threadIdx.x ^ 1));
}

TEST(RacesDeathTest, WhatTheKernelWritesReadAsConstant) {
  run(constant_kernel, 1, true);
  EXPECT_DEATH(run(constant_kernel, 1, false),
               race("constant_kernel", "thread.*reads", "thread.*writes",
                    "it is read as if the kernel did not write it"));
}

}  // namespace
}  // namespace dsm::kernels::cuda
